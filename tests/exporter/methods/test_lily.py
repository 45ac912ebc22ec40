"""Lily: PEFT's own model gives the outputs and the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LilyConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import eptx
from eptx.errors import EptxError
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from tests.exporter.methods.family import BERT, SMALL, TEXTS, write_bert
from tests.exporter.methods.routed import Weights, compare_fixed, compare_live, outputs
from tests.matrix.row import Arrays
from tests.support.decoders import Steps
from tests.support.encoder_decoders import Calls


def trained(base: Path, kind: str, targets: tuple[str, ...], folder: Path) -> Any:
    """PEFT's model, whose routers and factors are far from their start, saved."""
    torch.manual_seed(3)
    with quiet():
        model: Any = getattr(transformers, kind).from_pretrained(base)
        config = LilyConfig(r=4, num_B=3, stride_A=2, scaling=1.7, target_modules=list(targets))
        peft: Any = get_peft_model(model, config).eval()
        for name, parameter in peft.named_parameters():
            if ".lily_" in name:
                nn.init.normal_(parameter, std=1.2 if "router" in name else 0.25)
        peft.save_pretrained(folder)
    return peft


def test_the_mean_of_the_batch_weighs(tmp_path: Path) -> None:
    small = SMALL["bert"]
    base, inputs = small.write(tmp_path / "base"), small.reads(4)
    model = trained(base, small.trained, small.targets, tmp_path / "adapter")
    assert compare_live(small, base, tmp_path / "adapter", inputs, outputs(model, inputs)) == "lily"


def _close(found: np.ndarray, wanted: Tensor) -> bool:
    return float(np.abs(found - wanted.numpy()).max()) <= 2e-5 * max(1.0, float(wanted.abs().max()))


def test_every_call_of_a_decoder_weighs(tmp_path: Path) -> None:
    """As PEFT's model does with a cache: the prompt's positions, then those of each call."""
    small, ids = SMALL["llama"], np.random.default_rng(5).integers(5, 60, (3, 6))
    base = small.write(tmp_path / "base")
    model = trained(base, small.trained, small.targets, tmp_path / "adapter")
    bundle = eptx.export(base, tmp_path / "adapter", tmp_path / "out", ExportOptions(mode="dynamic"))
    calls = Steps(bundle)
    with torch.no_grad():
        first = model(input_ids=torch.from_numpy(ids), use_cache=True)
        assert _close(calls.prefill(ids.tolist())["logits"], first.logits)
        for token in (7, 11):
            first = model(input_ids=torch.full((3, 1), token), past_key_values=first.past_key_values)
            assert _close(calls.decode([token] * 3)["logits"], first.logits)
    assert eptx.validate(bundle.path).passed


def test_encoder_and_decoder_weigh_for_themselves(tmp_path: Path) -> None:
    small, ids = SMALL["t5"], np.random.default_rng(5).integers(5, 60, (3, 6))
    base, answer = small.write(tmp_path / "base"), np.random.default_rng(6).integers(5, 60, (3, 4))
    model = trained(base, small.trained, small.targets, tmp_path / "adapter")
    bundle = eptx.export(base, tmp_path / "adapter", tmp_path / "out", ExportOptions(mode="dynamic"))
    calls = Calls(bundle)
    calls.encode(ids, np.ones_like(ids))
    wanted = outputs(model, {"input_ids": ids, "decoder_input_ids": answer})["logits"]
    assert _close(calls.decode(answer)["logits"], torch.from_numpy(wanted))
    assert eptx.validate(bundle.path).passed


def test_the_mean_of_each_row_weighs(tmp_path: Path) -> None:
    base, inputs = write_bert(tmp_path / "base"), TEXTS(5)
    model = trained(base, "BertModel", BERT, tmp_path / "adapter")
    options = ExportOptions(mode="dynamic", routing="row")
    bundle = eptx.export(base, tmp_path / "adapter", tmp_path / "row", options)
    found = eptx.Session(bundle.path).run(inputs)["last_hidden_state"]
    together = outputs(model, inputs)["last_hidden_state"]
    for row, mask in enumerate(inputs["attention_mask"] == 1):
        alone = {name: array[row : row + 1, mask] for name, array in inputs.items()}
        wanted = outputs(model, alone)["last_hidden_state"][0]
        assert np.abs(found[row, mask] - wanted).max() <= 2e-5 * max(1, np.abs(wanted).max())
        assert np.abs(together[row, mask] - wanted).max() > 1e-3
    assert eptx.validate(bundle.path).passed


def test_weights_that_data_has_fixed(tmp_path: Path) -> None:
    base = write_bert(tmp_path / "base")
    peft = trained(base, "BertModel", BERT, tmp_path / "adapter")
    said: dict[str, np.ndarray] = {}
    fixed: dict[str, np.ndarray] = {}

    def listen(module: str) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
        def hook(router: nn.Module, args: Any, scores: Tensor) -> Tensor | None:
            said[module] = scores.softmax(-1).detach().numpy().reshape(-1, 3)
            return torch.from_numpy(fixed[module]).to(scores).log().expand_as(scores) if module in fixed else None

        return hook

    for name, layer in peft.named_modules():
        if name.endswith("lily_router.default"):
            layer.register_forward_hook(
                listen(name.removeprefix("base_model.model.").removesuffix(".lily_router.default"))
            )

    def run(inputs: Arrays, weights: Weights | None) -> dict[str, np.ndarray]:
        fixed.clear()
        if weights is not None and not any(own.any() for own in weights.values()):
            with peft.disable_adapter():
                return outputs(peft, inputs)
        fixed.update(weights or {})
        return outputs(peft, inputs)

    compare_fixed(base, tmp_path / "adapter", run, lambda: said)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    trained(write_bert(tmp_path / "base"), "BertModel", BERT, tmp_path / "adapter")
    return tmp_path / "adapter"


def _without(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    del tensors[next(key for key in tensors if key.endswith(".lily_B.weight"))]


def _cut(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    key = next(key for key in tensors if key.endswith(".lily_router.weight"))
    tensors[key] = tensors[key][:-1].contiguous()


def _rank(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    config["r"] = 5


def _new(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    config["use_gate"] = True


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (_without, 3, ".lily_B.weight is missing"),
        (_cut, 3, ".lily_router.weight has shape [2, 4]; by adapter_config.json it is [3, 4]"),
        (_rank, 3, ".lily_A.weight has shape [4, 16]; by adapter_config.json it is [5, 16]"),
        (_new, 5, "use_gate=True is not supported"),
    ],
)
def test_files_that_do_not_fit(
    saved: Path, tmp_path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], None], code: int, said: str
) -> None:
    tensors = load_file(saved / "adapter_model.safetensors")
    config = json.loads((saved / "adapter_config.json").read_text())
    change(tensors, config)
    save_file(tensors, saved / "adapter_model.safetensors")
    (saved / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(EptxError) as refused:
        eptx.export(tmp_path / "base", saved, tmp_path / "out", ExportOptions(mode="dynamic"))
    assert refused.value.exit_code == code and said in str(refused.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "routing", "code", "said"),
    [
        ("bert", "prompt", 2, "--routing prompt is for methods with one router"),
        ("t5", "row", 5, "--routing row: modules of a decoder that reads an encoder"),
    ],
)
def test_routings_that_are_refused(name: str, routing: Any, code: int, said: str, tmp_path: Path) -> None:
    small = SMALL[name]
    trained(small.write(tmp_path / "base"), small.trained, small.targets, tmp_path / "adapter")
    with pytest.raises(EptxError, match=said) as refused:
        options = ExportOptions(mode="dynamic", routing=routing)
        eptx.export(tmp_path / "base", tmp_path / "adapter", tmp_path / "out", options)
    assert refused.value.exit_code == code and not (tmp_path / "out").exists()
