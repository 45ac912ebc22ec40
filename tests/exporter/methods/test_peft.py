"""PEFT's other methods: what PEFT computes is what is exported, in the smallest form that holds it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import peft
import pytest
import torch
from peft import PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertModel

from eptx.calibration import export_bundle
from eptx.errors import AdapterError, EptxError, NotSupportedError
from eptx.exporter import ExportOptions
from eptx.exporter.methods.peft.factors import low_rank, smallest
from eptx.exporter.methods.peft.layers import Linear, linear
from eptx.exporter.methods.peft.types import TUNERS
from eptx.exporter.quiet import quiet
from eptx.exporter.validation import ValidateOptions, validate_bundle

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    settings = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertModel(BertConfig(vocab_size=40, max_position_embeddings=16, **settings))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    folder = tmp_path_factory.mktemp("base")
    with quiet():
        model.save_pretrained(folder)
    return folder


def saved(base: Path, folder: Path, config: Any) -> Path:
    """An adapter as PEFT saves it, of which everything that is trained is random."""
    with quiet():
        model = get_peft_model(BertModel.from_pretrained(base), config)
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(folder)
    return folder


def ia3() -> Any:
    return peft.IA3Config(target_modules=["query", "intermediate.dense"], feedforward_modules=["intermediate.dense"])


def test_every_method_of_peft_is_exported_or_refused_with_a_reason() -> None:
    # methods of eptx and its tests, which have folders
    own = {"EPT", "MOELORA", "MORE", "MTL_LORA", "POLY", "SHIFT", "TUCKA"}
    assert {kind.value for kind in PeftType} - own == set(TUNERS)
    for kind, tuner in TUNERS.items():
        prefix = PEFT_TYPE_TO_PREFIX_MAPPING.get(PeftType(kind))
        if tuner.refusal is None and tuner.part:
            assert prefix is not None and f".{prefix}".startswith(tuner.part), kind
        assert tuner.refusal is None or ";" in tuner.refusal  # the reason; what to do


@pytest.mark.parametrize("kind", [kind for kind, tuner in TUNERS.items() if tuner.refusal is not None])
def test_a_refusal_is_one_line_with_the_setting_and_the_file(kind: str, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps({"peft_type": kind}))
    save_file({"base_model.model.x.weight": torch.ones(1)}, folder / WEIGHTS)
    with pytest.raises(NotSupportedError, match=rf"^given/{CONFIG}: peft_type {kind} \(.*\): .*; train") as caught:
        export_bundle(base, [folder], tmp_path / "out", ExportOptions(mode="static"))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("rows", "columns", "rank"), [(24, 36, 1), (60, 50, 20), (200, 300, 0), (200, 300, 40)])
def test_factors_have_the_rank_of_an_update(rows: int, columns: int, rank: int) -> None:
    """Above 32, which is the first size of the sketch, too; noise as of a layer that computes in float32 is no rank."""
    rng = np.random.default_rng(0)
    weight, update = rng.normal(size=(rows, columns)), np.zeros((rows, columns))
    if rank:
        update = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns)) / 100
    adapted = (weight + update).astype(np.float32).astype(np.float64)
    found = smallest(Linear(weight.astype(np.float32).astype(np.float64), adapted, np.zeros(rows)))
    if not rank:
        assert found is None
        return
    assert found is not None and found.a is not None and found.a.shape[0] == rank
    assert np.abs(found.fold(weight) - weight - update).max() < 4e-7


def test_factors_that_hold_as_much_as_the_weight_are_none() -> None:
    """At 24 x 36, 14 * 60 = 840 < 864, and 15 * 60 = 900."""
    rng = np.random.default_rng(0)
    matrices = {rank: rng.normal(size=(24, rank)) @ rng.normal(size=(rank, 36)) for rank in (14, 15)}
    assert low_rank(matrices[14]) is not None and low_rank(matrices[15]) is None
    full = smallest(Linear(np.zeros((24, 36)), matrices[15], np.zeros(24)))
    assert full is not None and not hasattr(full, "a")
    assert np.array_equal(full.fold(np.ones((24, 36))), 1 + matrices[15])


@pytest.mark.parametrize("axis", [0, 1])
def test_a_gain_is_a_vector(axis: int) -> None:
    rng = np.random.default_rng(0)
    weight, gain = rng.normal(size=(24, 36)), rng.normal(size=(24, 36)[axis])
    weight[3] = 0  # a row that nothing changes
    adapted = weight * (gain[:, None] if axis == 0 else gain)
    found = smallest(Linear(weight, adapted, np.zeros(24)))
    assert found is not None and found.a is None
    vector = found.gain if axis == 0 else found.input_gain
    assert vector is not None and np.allclose(found.fold(weight), adapted, atol=1e-14)


def test_a_layer_that_is_no_linear_function_is_refused() -> None:
    """Lily's router decides by the data."""

    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 3).double()

        def get_base_layer(self) -> nn.Module:
            return self.inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.inner(x)
            return y * (1 + 1e-3 * x.mean().sigmoid())

    layer: Any = Chosen()
    with pytest.raises(NotSupportedError, match=r"^q: .*no linear function"):
        linear("q", layer)


def test_validation_passes_and_fails_when_a_vector_is_changed(base: Path, tmp_path: Path) -> None:
    """LoRA and IA3 are tasks of one bundle, and validation has PEFT load each as what it is.

    IA3 has gains of an output and of an input; the bias of the one is multiplied too, that of the other is not.
    """
    lora = peft.LoraConfig(target_modules=["query", "value"], r=2, use_rslora=True)
    adapters = [saved(base, tmp_path / "one", lora), saved(base, tmp_path / "two", ia3())]
    bundle = export_bundle(base, adapters, tmp_path / "bundle", ExportOptions(mode="conditioned"))
    assert bundle.manifest.method == "peft"
    assert validate_bundle(bundle.path, ValidateOptions(providers=["cpu"])).passed
    model = ir.load(bundle.model)
    gain = next(value for name, value in model.graph.initializers.items() if "gain" in name)
    assert gain.const_value is not None
    array = gain.const_value.numpy().copy()
    array[1, 3] *= 1.001
    gain.const_value = ir.Tensor(array, name=gain.name)
    changed = tmp_path / "changed"
    rewritten(bundle.path, changed, model)
    report = validate_bundle(changed, ValidateOptions(base=base, adapters=adapters, providers=["cpu"]))
    assert not report.passed


def test_norms_and_rows_of_tokens(base: Path, tmp_path: Path) -> None:
    norms = peft.LNTuningConfig(target_modules=["LayerNorm"])
    tokens = peft.TrainableTokensConfig(target_modules=["word_embeddings"], token_indices=list(range(4, 40, 2)))
    adapters = [saved(base, tmp_path / "norms", norms), saved(base, tmp_path / "tokens", tokens)]
    bundle = export_bundle(base, adapters, tmp_path / "bundle", ExportOptions(mode="conditioned"))
    report = validate_bundle(bundle.path, ValidateOptions(providers=["cpu"]))
    assert report.passed, report.reason


def test_a_lora_that_is_refused_alone_is_refused_in_company(base: Path, tmp_path: Path) -> None:
    with quiet():
        lora = peft.LoraConfig(target_modules=["query"], r=2, alora_invocation_tokens=[1])
    adapters = [saved(base, tmp_path / "one", lora), saved(base, tmp_path / "two", ia3())]
    with pytest.raises(NotSupportedError, match=r"one/adapter_config\.json: alora_invocation_tokens"):
        export_bundle(base, adapters, tmp_path / "bundle", ExportOptions(mode="conditioned"))


def rewritten(bundle: Path, folder: Path, model: ir.Model) -> None:
    """A bundle with another graph, and the manifest of that."""
    import hashlib
    import shutil

    shutil.copytree(bundle, folder)
    for path in folder.glob("model.onnx*"):
        path.unlink()
    ir.save(model, folder / "model.onnx", external_data="model.onnx.data", size_threshold_bytes=1024)
    manifest = json.loads((folder / "eptx.json").read_text())
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "eptx.json").write_text(json.dumps(manifest))


def _without(name: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda config, tensors: [tensors.pop(key) for key in list(tensors) if name in key]  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (_without("query"), AdapterError, r"given/adapter_model.safetensors lacks .*query\.ia3_l"),
        (
            lambda config, tensors: tensors.update({"base_model.model.other.ia3_l": torch.ones(1, 3)}),
            AdapterError,
            r"given/adapter_model.safetensors: other\.ia3_l is of no module",
        ),
        (
            lambda config, tensors: config.update(feed_backward=["x"]),
            NotSupportedError,
            r"given/adapter_config.json: the installed PEFT does not know feed_backward=\['x'\]: update peft",
        ),
        (
            lambda config, tensors: config.update(target_modules=["nothing"], feedforward_modules=[]),
            AdapterError,
            "PEFT cannot put it on",
        ),
    ],
    ids=["missing tensor", "extra tensor", "unknown setting", "no module"],
)
def test_files_that_do_not_fit(
    change: Callable[[dict[str, Any], dict[str, Any]], None],
    error: type[EptxError],
    said: str,
    base: Path,
    tmp_path: Path,
) -> None:
    folder = saved(base, tmp_path / "given", ia3())
    config, tensors = json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
    change(config, tensors)
    (folder / CONFIG).write_text(json.dumps(config))
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(error, match=said) as caught:
        export_bundle(base, [folder], tmp_path / "out", ExportOptions(mode="static"))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_full_rank_is_refused_in_a_bundle_of_several_tasks(base: Path, tmp_path: Path) -> None:
    folder = saved(base, tmp_path / "given", peft.OFTConfig(target_modules=["query"], oft_block_size=8))
    with pytest.raises(NotSupportedError, match=r"^given/adapter_config.json: peft_type OFT .*: use --mode static$"):
        export_bundle(base, [folder], tmp_path / "out", ExportOptions(mode="conditioned"))
    assert not (tmp_path / "out").exists()
