"""MixLoRA: whole feed-forwards, run expert by expert as the released code does, give the outputs and the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

import eptx
from eptx.errors import EptxError
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from tests.exporter.methods.family import SMALL
from tests.exporter.methods.mixlora_layers import CONFIG, EXPERTS, change_bert, change_t5, trained, write
from tests.exporter.methods.routed import compare_live, outputs


@pytest.mark.parametrize(("name", "change", "firsts"), [("bert", change_bert, ("first",)), ("t5", change_t5, ("wi",))])
def test_every_token_chooses(name: str, change: Any, firsts: tuple[str, ...], tmp_path: Path) -> None:
    small = SMALL[name]
    base, inputs = small.write(tmp_path / "base"), small.reads(4)
    torch.manual_seed(3)
    with quiet():
        model: Any = getattr(transformers, small.trained).from_pretrained(base).eval()
    write(model, change, tmp_path / "adapter", firsts)
    assert compare_live(small, base, tmp_path / "adapter", inputs, outputs(model, inputs)) == "mixlora"


def test_the_head_of_a_classification(tmp_path: Path) -> None:
    """MoE-PEFT calls it `classifier`, and takes the last token's as transformers does.

    One of the two projections that are multiplied has no experts: `target_modules` left it out.
    """
    small = SMALL["llama"]._replace(call="forward")
    base, inputs = small.write(tmp_path / "base"), small.reads(4)
    model = trained(base, tmp_path / "saved", classes=True, projections=("up_proj",))
    eptx.convert(tmp_path / "saved", tmp_path / "adapter")
    bundle = eptx.export(base, tmp_path / "adapter", tmp_path / "out", ExportOptions(mode="dynamic"))
    wanted = outputs(model, inputs)["logits"]
    assert np.abs(eptx.Session(bundle.path).run(inputs)["logits"] - wanted).max() <= 2e-5 * max(1, np.abs(wanted).max())
    assert eptx.validate(bundle.path).passed


def test_what_moe_peft_saves(tmp_path: Path) -> None:
    small = SMALL["llama"]
    base, inputs = small.write(tmp_path / "base"), small.reads(4)
    model = trained(base, tmp_path / "saved")
    assert eptx.convert(tmp_path / "saved", tmp_path / "adapter").method == "MixLoRA"
    assert compare_live(small, base, tmp_path / "adapter", inputs, outputs(model, inputs)) == "mixlora"


Change = Callable[[dict[str, Tensor], dict[str, Any]], None]


def _set(**settings: Any) -> Change:
    return lambda tensors, config: config.update(settings)


def _without(*endings: str) -> Change:
    def change(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
        for name in [name for name in tensors if name.endswith(endings)]:
            del tensors[name]

    return change


def _renamed(old: str, new: str) -> Change:
    def change(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
        for name in [name for name in tensors if old in name]:
            tensors[name.replace(old, new)] = tensors.pop(name)

    return change


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (_set(routing_strategy="mixlora-switch"), 5, "routing_strategy='mixlora-switch' is not supported"),
        (_set(use_dora=True), 5, "use_dora=true is not supported in MixLoRA"),
        (_set(expert_lora={"r": 2, "lora_alpha": 7, "use_dora": True}), 5, "use_dora=true is not supported in MixLoRA"),
        (_set(top_k=None), 2, "top_k"),
        (_renamed("mlp.down_proj", "mlp.other"), 5, "mixlora.layers.0.mlp: has experts at "),
        (_without("down_proj.experts.2.lora_A.weight"), 3, "down_proj.*.lora_A.weight: expert 2 is missing"),
        (_renamed("experts.3.lora_A.weight", "experts.3.lora_C.weight"), 3, "lora_C.weight: is no tensor of a MixLoRA"),
    ],
)
def test_what_is_not_converted(change: Change, code: int, said: str, tmp_path: Path) -> None:
    trained(SMALL["llama"].write(tmp_path / "base"), saved := tmp_path / "saved")
    tensors, config = torch.load(saved / "adapter_model.bin", weights_only=True), dict(CONFIG)
    change(tensors, config)
    torch.save(tensors, saved / "adapter_model.bin")
    (saved / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(EptxError) as refused:
        eptx.convert(saved, tmp_path / "adapter")
    assert refused.value.exit_code == code and said in str(refused.value) and not (tmp_path / "adapter").exists()


def test_the_activation_is_the_bases(tmp_path: Path) -> None:
    """MoE-PEFT writes it into every configuration."""
    trained(base := SMALL["llama"].write(tmp_path / "base"), saved := tmp_path / "saved")
    (saved / "adapter_config.json").write_text(json.dumps({**CONFIG, "act_fn": "gelu"}))
    eptx.convert(saved, tmp_path / "adapter")
    alone = ExportOptions(mode="dynamic", base_onnx=tmp_path / "base.onnx")
    for folder, options, code, said in (
        (base, ExportOptions(mode="dynamic"), 5, "act_fn='gelu' is not supported: model.layers.0.mlp of the base has"),
        (None, alone, 2, "act_fn='gelu' needs the base's transformers folder"),
    ):
        with pytest.raises(EptxError, match=said) as refused:
            eptx.export(folder, tmp_path / "adapter", tmp_path / "out", options)
        assert refused.value.exit_code == code and not (tmp_path / "out").exists()


def test_experts_that_the_last_projection_lacks(tmp_path: Path) -> None:
    small = SMALL["bert"]
    base = small.write(tmp_path / "base")
    with quiet():
        model: Any = transformers.BertModel.from_pretrained(base).eval()
    write(model, change_bert, folder := tmp_path / "adapter", ("first",))
    tensors = load_file(folder / "adapter_model.safetensors")
    kept = {name: array for name, array in tensors.items() if ".output.dense." not in name}
    save_file(kept, folder / "adapter_model.safetensors")
    with pytest.raises(EptxError, match="reads what experts of a feed-forward give") as refused:
        eptx.export(base, folder, tmp_path / "out", ExportOptions(mode="dynamic"))
    assert refused.value.exit_code == 5 and not (tmp_path / "out").exists()


def test_many_tokens_near_a_tie_are_set_aside(tmp_path: Path) -> None:
    """Two experts of one gate row each: every token is a tie, and validation says so rather than fail or pass."""
    small = SMALL["bert"]
    base = small.write(tmp_path / "base")
    with quiet():
        model: Any = transformers.BertModel.from_pretrained(base).eval()
    write(model, change_bert, folder := tmp_path / "adapter", ("first",))
    tensors = load_file(folder / "adapter_model.safetensors")
    for name in [name for name in tensors if name.endswith(".moe_gate")]:
        tensors[name] = tensors[name][:1].repeat(EXPERTS, 1)
    save_file(tensors, folder / "adapter_model.safetensors")
    eptx.export(base, folder, tmp_path / "out", ExportOptions(mode="dynamic"))
    report = eptx.validate(tmp_path / "out")
    assert not report.passed
    assert "rounding decides what a router chooses for every one of its rows" in str(report.reason)
