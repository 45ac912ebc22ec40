"""Configurations of strangers: what names other code in them is not run, fetched or asked for.

transformers' loader of kernels, and the network, are replaced by what counts calls. Without the mend the kernel is
asked for: `test_transformers_would_load_it` holds that the keys mean something to the transformers that runs here.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import transformers
from transformers import modeling_utils
from transformers.integrations import hub_kernels

from eptx.calibration import export_bundle
from eptx.errors import BaseModelError, NotSupportedError
from eptx.exporter import ExportOptions
from eptx.exporter.bases.weights.config import base_config
from eptx.exporter.validation import ValidateOptions, validate_bundle
from tests.exporter.validation.adapters import linear_shapes, write_lora
from tests.support.decoders import write_decoder
from tests.support.encoder_decoders import write_encoder_decoder

_KERNEL = "some-org/some-kernel"
_HOSTILE: dict[str, dict[str, Any]] = {
    "a kernel": {"attn_implementation": _KERNEL},
    "by its inner name": {"_attn_implementation": _KERNEL},
    "for a part": {"attn_implementation": {"": f"{_KERNEL}@main:attention", "text_config": _KERNEL}},
    "a known one": {"attn_implementation": "flash_attention_2", "_attn_implementation_internal": _KERNEL},
    "of experts": {"experts_implementation": _KERNEL, "_experts_implementation": _KERNEL},
    "all at once": {
        "attn_implementation": _KERNEL,
        "experts_implementation": _KERNEL,
        "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.T", None]},
        "custom_generate": _KERNEL,
        "use_kernels": True,
        "kernel_config": {"kernel_mapping": {"RMSNorm": f"{_KERNEL}:RMSNorm"}},
        "fusion_config": {"patch_embeddings": True},
    },
}


@pytest.fixture
def calls() -> Iterator[list[str]]:
    """What was asked of the loaders and the network; each ends in an error."""
    found: list[str] = []

    def refuse(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            found.append(f"{name}{args}")
            raise RuntimeError(f"{name} was called")

        return call

    with (
        mock.patch.object(hub_kernels, "get_kernel", refuse("get_kernel")),
        mock.patch.object(hub_kernels, "load_and_register_attn_kernel", refuse("load_and_register_attn_kernel")),
        mock.patch.object(modeling_utils, "lazy_import_flash_attention", refuse("lazy_import_flash_attention")),
        mock.patch("transformers.fusion_mapping.register_fusion_patches", refuse("register_fusion_patches")),
        mock.patch("transformers.dynamic_module_utils.get_class_in_module", refuse("get_class_in_module")),
        mock.patch.object(socket.socket, "connect", refuse("connect")),
        mock.patch.object(socket, "getaddrinfo", refuse("getaddrinfo")),
    ):
        yield found


def _change(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _write_bert(folder: Path) -> Path:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=60, max_position_embeddings=32, **sizes)  # type: ignore[arg-type]
    model: Any = transformers.BertModel(config)
    model.save_pretrained(folder)
    return folder


def _write(kind: str, root: Path) -> tuple[Path, Path]:
    base = {
        "bert": lambda: _write_bert(root / "base"),
        "llama": lambda: write_decoder("llama", root / "base"),
        "t5": lambda: write_encoder_decoder("t5", root / "base"),
    }[kind]()
    names = {"bert": ("query",), "llama": ("q_proj", "down_proj"), "t5": ("SelfAttention.q",)}[kind]
    return base, write_lora(root / "lora", linear_shapes(base, names), seed=1)


@pytest.fixture(scope="module", params=["bert", "llama", "t5"])
def plain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, dict[str, Any]]:
    """A base, a LoRA adapter, and the files of their bundle."""
    root = tmp_path_factory.mktemp(request.param)
    base, lora = _write(request.param, root)
    return base, lora, dict(_export(base, lora, root / "bundle"))


def _export(base: Path, lora: Path, out: Path) -> Any:
    return export_bundle(base, [lora], out, ExportOptions(mode="conditioned")).manifest.files


def test_the_same_bytes(plain: tuple[Path, Path, dict[str, Any]], tmp_path: Path, calls: list[str]) -> None:
    base, lora, wanted = plain
    hostile = shutil.copytree(base, tmp_path / "base")
    _change(hostile, **_HOSTILE["all at once"])
    (hostile / "evil.py").write_text("raise SystemExit('run')\n")
    (hostile / "custom_generate").mkdir()
    (hostile / "custom_generate" / "generate.py").write_text("raise SystemExit('run')\n")
    settings = json.loads((hostile / "tokenizer_config.json").read_text()) if "tokenizer.json" in wanted else None
    if settings is not None:
        settings["auto_map"] = {"AutoTokenizer": ["evil.Slow", "evil.Fast"]}
        (hostile / "tokenizer_config.json").write_text(json.dumps(settings))
    found = _export(hostile, lora, tmp_path / "bundle")
    assert calls == []
    graphs = [file for file in wanted if ".onnx" in file]
    assert graphs
    assert {file: found[file] for file in graphs} == {file: wanted[file] for file in graphs}
    report = validate_bundle(tmp_path / "bundle", ValidateOptions(base=hostile, adapters=[lora], providers=["cpu"]))
    assert calls == []
    assert report.passed, report.reason


@pytest.mark.parametrize("name", _HOSTILE)
def test_a_model_of_it(name: str, tmp_path: Path, calls: list[str]) -> None:
    base = _write_bert(tmp_path / "base")
    _change(base, **_HOSTILE[name])
    model: Any = transformers.BertModel
    made = model.from_pretrained(base, config=base_config(base), trust_remote_code=False)
    assert calls == []
    assert made.config._attn_implementation in ("sdpa", "eager")


@pytest.mark.parametrize("name", ["a kernel", "by its inner name", "for a part"])
def test_transformers_would_load_it(name: str, tmp_path: Path, calls: list[str]) -> None:
    base = _write_bert(tmp_path / "base")
    _change(base, **_HOSTILE[name])
    model: Any = transformers.BertModel
    with pytest.raises(RuntimeError, match="was called"):
        model.from_pretrained(base)
    assert calls


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_models_inside_a_model(part: str, tmp_path: Path) -> None:
    config: Any = transformers.CLIPConfig()
    config.save_pretrained(tmp_path)
    _change(tmp_path, attn_implementation={part: _KERNEL}, experts_implementation={part: _KERNEL})
    assert getattr(transformers.CLIPConfig.from_pretrained(tmp_path), part)._attn_implementation == _KERNEL
    inner = getattr(base_config(tmp_path), part)
    assert inner._attn_implementation is None
    assert inner._experts_implementation is None


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"quantization_config": {"quant_method": "mxfp4"}}, NotSupportedError, "quantized by mxfp4"),
        ({"text_config": {"quantization_config": {"quant_method": "mxfp4"}}}, NotSupportedError, "by mxfp4"),
        ({"transformers_weights": "other.safetensors"}, BaseModelError, "transformers_weights names another file"),
    ],
)
def test_refused(changes: dict[str, Any], kind: type[Exception], said: str, tmp_path: Path) -> None:
    """A library would be chosen by the file, or other weights be read than those that eptx compares."""
    base, lora = _write("bert", tmp_path)
    _change(base, **changes)
    with pytest.raises(kind, match=said):
        _export(base, lora, tmp_path / "bundle")
    with pytest.raises(kind, match=said):
        base_config(base)
    assert not (tmp_path / "bundle").exists()
