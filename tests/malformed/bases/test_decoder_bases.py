"""Decoders' bases that no export can be made of: one line, and nothing is built."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.exporter.validation.adapters import linear_shapes, write_ept, write_lora, write_tucka
from tests.malformed.scene import Cli, leaves_nothing
from tests.support.decoders import write_decoder

_LAYER = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``base/`` and an adapter of every kind, and adapters of a base that is half as wide."""
    root = tmp_path_factory.mktemp("decoders")
    base = write_decoder("llama", root / "base")
    other = write_decoder("llama", root / "other", hidden_size=32, intermediate_size=48)
    for kind, folder in (("", base), ("narrow_", other)):
        shapes = linear_shapes(folder, ("q_proj", "down_proj"))
        write_ept(root / f"{kind}ept", shapes, seed=1, sizes=(2, 3, 3, 5))
        write_tucka(root / f"{kind}tucka", shapes, seed=2)
        write_lora(root / f"{kind}lora", shapes, seed=3)
    (root / "out").mkdir()
    return root


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(base: Path) -> None:
        path = base / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _stored(dtype: Any) -> Callable[[Path], None]:
    def change(base: Path) -> None:
        tensors = load_file(base / "model.safetensors")
        save_file(tensors | {_LAYER: tensors[_LAYER].astype(dtype)}, base / "model.safetensors")

    return change


def _gptq(base: Path) -> None:
    """As the older libraries save it: no word of it in the configuration."""
    tensors = load_file(base / "model.safetensors")
    name = _LAYER.removesuffix("weight")
    del tensors[_LAYER]
    tensors |= {f"{name}qweight": np.ones((12, 64), np.int32), f"{name}scales": np.ones((3, 64), np.float16)}
    save_file(tensors, base / "model.safetensors")


#: name -> how the base is broken, exit code, what the line says.
BASES: dict[str, tuple[Callable[[Path], Any], int, str]] = {
    **{
        method: (_config(quantization_config={"quant_method": method, "bits": 4}), 5, f"is quantized by {method} (")
        for method in ("bitsandbytes", "gptq", "awq", "fp8", "compressed-tensors", "mxfp4", "torchao", "of_tomorrow")
    },
    "a method that is no word": (_config(quantization_config={"quant_method": [1]}), 5, "the base is quantized (quant"),
    "a setting that is no object": (
        _config(quantization_config="gptq"),
        5,
        "the base is quantized (quantization_config",
    ),
    "an older GPTQ": (_gptq, 5, "down_proj.qweight is stored as I32: the base is quantized"),
    "weights in bytes": (_stored(np.uint8), 5, f"{_LAYER} is stored as U8: the base is quantized"),
    "an adapter beside it": (lambda base: (base / "adapter_config.json").write_text("{}"), 3, "move the adapter else"),
    "rotary positions of no kind": (_config(rope_scaling={"type": "spiral"}), 3, "config.json: "),
}


@pytest.mark.parametrize("mode", ["conditioned", "static"])
@pytest.mark.parametrize("name", BASES)
def test_bases(pristine: Path, tmp_path: Path, cli: Cli, name: str, mode: str) -> None:
    change, code, said = BASES[name]
    root = shutil.copytree(pristine, tmp_path / "scene")
    change(root / "base")
    settings = ["--mode", mode, "--top-k", "2", *(["--task", "task0"] if mode == "static" else [])]
    with leaves_nothing(root), mock.patch("onnxruntime_genai.models.builder.create_model") as built:
        cli.refuses(code, said, "export", "--quiet", root / "base", root / "ept", "-o", root / "out" / "b", *settings)
    assert not built.called


@pytest.mark.parametrize("kind", ["ept", "tucka", "lora"])
def test_static_of_another_width(pristine: Path, tmp_path: Path, cli: Cli, kind: str) -> None:
    root = shutil.copytree(pristine, tmp_path / "scene")
    settings = ["--mode", "static", "--task", "task0"]
    settings += ["--top-k", "2"] if kind == "ept" else []
    if kind == "tucka":
        settings += ["--route", "task0=0:1,0"]
    with leaves_nothing(root):
        said = "the adapter does not fit this base: model.layers.0."
        cli.refuses(
            3, said, "export", "--quiet", root / "base", root / f"narrow_{kind}", "-o", root / "out/b", *settings
        )
