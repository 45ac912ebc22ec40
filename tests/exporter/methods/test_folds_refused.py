"""What is refused of MoSLoRA, AdaMix and MultiLoRA, and which settings stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import eptx
from tests.exporter.methods.folds import KINDS, MosLora, MultiLora, Saved, files
from tests.exporter.methods.released import Change, drop, put, refused


def changed(file: Path, edit: Change) -> None:
    tensors = torch.load(file, weights_only=True)
    nested = "model_state_dict" in tensors
    edit(tensors["model_state_dict"] if nested else tensors)
    torch.save(tensors, file)


@pytest.mark.parametrize(
    ("kind", "edit", "code", "said"),
    [
        (
            "MoSLoRA",
            drop("lora_A.weight"),
            3,
            "adapter_model.bin: encoder.layer.0.attention.self.query.lora_A.weight is",
        ),
        (
            "MoSLoRA",
            put("lora_AB.weight", lambda t: t[:2]),
            3,
            "lora_AB.weight has shape [2, 3]; of this rank it is [3",
        ),
        ("MoSLoRA", put("lora_B.weight", lambda t: t[:, :2]), 3, "lora_B.weight has rank 2, "),
        ("MoSLoRA", put("lora_AB.weight", lambda t: t[0]), 3, "lora_AB.weight has shape [3]; it must have 2 axes"),
        (
            "AdaMix",
            drop("experts_lora_A.2"),
            3,
            "model.final.pt: encoder.layer.0.attention.self.query.experts_lora_A.2 ",
        ),
        ("AdaMix", drop("experts_lora_B.0"), 3, "experts_lora_B.0 is missing"),
        ("AdaMix", put("score_weight", lambda t: t[:2]), 3, "has 4 of experts_lora_A, and 2 scores"),
        ("AdaMix", put("experts_lora_A.1", lambda t: t[:2]), 3, "experts_lora_A.1 has shape [2, 16]; as encoder.layer"),
        ("AdaMix", put("experts_lora_B.0", lambda t: t[:, :1]), 5, "[16, 1]: no layer of the released code has these"),
        (
            "AdaMix",
            put("lora_B.0", lambda t: t, "x.MoA_A.deepspeed_experts.0.weight"),
            5,
            "an activation in it, which no",
        ),
        ("AdaMix", put("lora_B.0", lambda t: t, "x.lora_gate"), 3, "unexpected tensors: x.lora_gate"),
        (
            "MultiLoRA",
            drop(".lora_B"),
            3,
            "final_checkpoint.pt: encoder.layer.0.attention.self.query.lora_B is missing",
        ),
        (
            "MultiLoRA",
            put(".lora_B", lambda t: t[:3]),
            3,
            "lora_B has shape [3, 16, 3]; with the other tensors it is [4",
        ),
        ("MultiLoRA", put(".lora_scaling", lambda t: t[:2]), 3, "layers disagree on how many LoRAs they have: [2, 4]"),
        (
            "MultiLoRA",
            put(".lora_scaling", lambda t: t[:, :5]),
            3,
            "lora_B has shape [4, 16, 3]; with the other tensors",
        ),
        (
            "MultiLoRA",
            put(".lora_B", lambda t: t, "x.lora_C"),
            3,
            "unexpected tensors: x.lora_C; the released code saves",
        ),
    ],
)
def test_files_that_do_not_fit(kind: str, edit: Change, code: int, said: str, tmp_path: Path) -> None:
    file = files(kind, KINDS[kind][0], tmp_path)
    changed(file, edit)
    refused(file, tmp_path / "out", {} if kind == "MoSLoRA" else Saved.asked, code, said)


@pytest.mark.parametrize("kind", ["AdaMix", "MultiLoRA"])
def test_alpha_is_asked_for(kind: str, tmp_path: Path) -> None:
    file = files(kind, KINDS[kind][0], tmp_path)
    refused(file, tmp_path / "out", {}, 2, "does not say lora_alpha (the scale of the update is lora_alpha / r): give")
    refused(file, tmp_path / "out", {"lora_alpha": -1}, 3, "lora_alpha must be a positive number, found -1")


def test_layers_of_two_ranks(tmp_path: Path) -> None:
    file = files("MultiLoRA", MultiLora, tmp_path)

    def edit(tensors: dict[str, Tensor]) -> None:
        name = next(name for name in tensors if name.endswith(".lora_A")).removesuffix("A")
        tensors[f"{name}A"], tensors[f"{name}B"] = tensors[f"{name}A"][:, :2], tensors[f"{name}B"][:, :, :2]

    changed(file, edit)
    refused(
        file,
        tmp_path / "out",
        Saved.asked,
        3,
        "dense has rank 12, encoder.layer.0.attention.self.query 8: one lora_alpha",
    )


def test_settings_of_lora_are_kept(tmp_path: Path) -> None:
    file = files("MoSLoRA", MosLora, tmp_path)
    config = file.parent / "adapter_config.json"
    config.write_text(json.dumps(Saved.mos | {"use_rslora": True, "alpha_pattern": {"query": 7}}))
    eptx.convert(file.parent, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert written["use_rslora"] is True and written["alpha_pattern"] == {"query": 7}
    assert "lora_use_mixer" not in written and len(written["target_modules"]) == 8
    config.write_text(json.dumps(Saved.mos | {"use_dora": True}))
    refused(file.parent, tmp_path / "dora", {}, 5, "use_dora=True is not supported: with it the released code leaves")


def test_a_layer_without_a_matrix_between_is_plain(tmp_path: Path) -> None:
    file = files("MoSLoRA", MosLora, tmp_path)
    changed(file, drop("lora_AB.weight"))
    tensors = torch.load(file, weights_only=True)
    eptx.convert(file.parent, tmp_path / "out")
    name = "base_model.model.encoder.layer.0.attention.self.query.lora_B.weight"
    written = load_file(tmp_path / "out" / "adapter_model.safetensors")
    torch.testing.assert_close(written[name], tensors[name], rtol=0, atol=0)
