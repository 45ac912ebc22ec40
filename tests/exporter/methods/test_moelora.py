"""MOELoRA: layers as the released code has them, with its names of parameters, give the outputs and the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import eptx
from eptx.errors import EptxError
from eptx.exporter import ExportOptions
from tests.exporter.methods.family import BERT, ROWS, SMALL, TASKS, compare, write_bert
from tests.exporter.methods.released import Change, Layer, drop, outputs, own, put, refused, replaced

EXPERTS, RANK, ALPHA, WIDTH = 4, 8, 12, 5
CONFIG: dict[str, Any] = {
    "peft_type": "MMOELORAS",
    "task_type": None,
    "r": RANK,
    "lora_alpha": ALPHA,
    "lora_dropout": 0.1,
    "task_num": len(TASKS),
    "task_embedding_dim": WIDTH,
    "expert_num": EXPERTS,
    "target_modules": ["query"],
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
}


class Expert(nn.Module):
    """A factor, which has two names."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.mlp = nn.Linear(inner, outer, bias=False)
        self.mlp.weight.data.normal_(0, 0.25)
        self.weight = self.mlp.weight


def gate(name: str) -> nn.Module:
    """Something that has one parameter of that name."""
    made = nn.Module()
    made.add_module(name, nn.Linear(WIDTH, EXPERTS, bias=False))
    return made


class MoeLora(Layer):
    """The layer has an embedding and a gate that nobody asks; `shares` is of the model."""

    shares: Tensor

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__(inner)
        self.lora_A, self.lora_B = nn.Module(), nn.Module()
        small = RANK // EXPERTS
        self.lora_A.loraA = nn.ModuleList(Expert(inner.in_features, small) for _ in range(EXPERTS))
        self.lora_B.loraB = nn.ModuleList(Expert(small, inner.out_features) for _ in range(EXPERTS))
        self.lora_task_embedding, self.lora_gate = nn.Embedding(len(TASKS) + 1, WIDTH), gate("GateL")

    def update(self, x: Tensor) -> Tensor:
        """Every expert's product is a weight of its own, and the task's is their sum."""
        assert isinstance(self.lora_A.loraA, nn.ModuleList) and isinstance(self.lora_B.loraB, nn.ModuleList)
        assert Layer.task is not None
        total = torch.zeros_like(self.inner.weight)
        for share, a, b in zip(MoeLora.shares[Layer.task], self.lora_A.loraA, self.lora_B.loraB, strict=True):
            total += share * (b.mlp.weight @ a.mlp.weight)
        return x @ (ALPHA / RANK * total).T


def trained(base: Path, kind: str, targets: tuple[str, ...], folder: Path) -> Any:
    """A model with such layers, and the folder that the released code saves; ids of tasks begin with 1 there."""
    model = replaced(base, kind, targets, MoeLora)
    embedding, last = nn.Embedding(len(TASKS) + 1, WIDTH), nn.Linear(WIDTH, EXPERTS, bias=False)
    for parameter in (embedding.weight, last.weight):
        parameter.data.normal_(0, 1)
    scores = embedding.weight.data[1:] @ last.weight.data.T
    MoeLora.shares = scores.exp() / scores.exp().sum(1, keepdim=True)
    folder.mkdir()
    root = {"lora_task_embedding.weight": embedding.weight.data, "lora_gate.GateL.weight": last.weight.data}
    torch.save(own(model) | root, folder / "adapter_model.bin")
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    return model


@pytest.mark.parametrize("name", SMALL)
def test_every_row_mixes_as_its_task_does(name: str, tmp_path: Path) -> None:
    small = SMALL[name]
    base, inputs = small.write(tmp_path / "base"), small.reads(len(ROWS))
    model = trained(base, small.trained, small.targets, tmp_path / "saved")
    assert eptx.convert(tmp_path / "saved", tmp_path / "adapter").method == "MOELoRA"
    wanted = outputs(model, inputs, (0, 1, 2, None))
    assert compare(small, base, tmp_path / "adapter", inputs, wanted) == "moelora"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    trained(write_bert(tmp_path / "base"), "BertModel", BERT, tmp_path / "saved")
    return tmp_path / "saved"


def change(folder: Path, edit: Change) -> None:
    tensors = torch.load(folder / "adapter_model.bin", weights_only=True)
    edit(tensors)
    torch.save(tensors, folder / "adapter_model.bin")


ROOT = "lora_gate.GateL.weight"


def _drop_root(tensors: dict[str, Tensor]) -> None:
    del tensors[ROOT]


@pytest.mark.parametrize(
    ("edit", "code", "said"),
    [
        (_drop_root, 3, "adapter_model.bin: lora_gate.GateL.weight is missing, and layers have gates of their own"),
        (lambda t: t.pop("lora_task_embedding.weight"), 3, "lora_task_embedding.weight is missing: save the adapter"),
        (put(ROOT, lambda t: t[:-1], ROOT), 3, "GateL.weight has shape [3, 5]; with the configuration it is [4, 5]"),
        (put("lora_A.loraA.2.mlp.weight", lambda t: t[:1]), 3, "loraA.2.weight differ; the released code saves one"),
        (put("lora_B.loraB.3.weight", lambda t: 2 * t), 3, "loraB.3.weight differ; the released code saves one tensor"),
        (put("loraA.1.weight", lambda t: t, "x.lora_A.loraA.4.weight"), 3, "x.lora_A.loraA has an expert 4; lora_gate"),
        (put("loraA.1.weight", lambda t: t, "x.lora_A.loraA.1.weight"), 3, "x.lora_A.loraA.0.mlp.weight is missing"),
        (put("loraA.1.weight", lambda t: t, "x.lora_C.weight"), 3, "unexpected tensors: "),
        (put("lora_task_embedding.weight", lambda t: t[:3], "lora_task_embedding.weight"), 3, "with task_num it is"),
    ],
    ids=["gate", "embedding", "gate's rows", "ranks", "aliases", "too many", "experts", "names", "tasks"],
)
def test_files_that_do_not_fit(saved: Path, tmp_path: Path, edit: Change, code: int, said: str) -> None:
    change(saved, edit)
    refused(saved, tmp_path / "out", {}, code, said)


def test_an_expert_of_another_rank(saved: Path, tmp_path: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        name = next(name for name in tensors if name.endswith("loraA.2.weight"))
        for each in (name, name.replace(".weight", ".mlp.weight")):
            tensors[each] = tensors[each][:1]

    change(saved, edit)
    refused(saved, tmp_path / "out", {}, 3, "loraA.2.mlp.weight has shape [1, 16]; as of expert 0 it is [2, 16]")


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({"r": 16}, 3, "has rank 8 in all its experts; the configuration says 16"),
        ({"task_num": 7}, 3, "lora_task_embedding.weight has shape [4, 5]; with task_num it is [8, 5]"),
        ({"lora_alpha": "two"}, 3, "adapter_model.bin: lora_alpha must be a positive number, found 'two'"),
        ({"lora_alpha": None}, 2, "adapter_model.bin does not say lora_alpha (the scale of the update is"),
        ({"bias": "all"}, 5, "bias='all' is not supported"),
        ({"per_token": True}, 5, "per_token=True is not supported"),
    ],
)
def test_settings_that_do_not_fit(saved: Path, tmp_path: Path, settings: dict[str, Any], code: int, said: str) -> None:
    (saved / "adapter_config.json").write_text(json.dumps(CONFIG | settings))
    refused(saved, tmp_path / "out", {}, code, said)


def test_the_task_type_of_the_released_code_is_of_decoders(saved: Path, tmp_path: Path) -> None:
    (saved / "adapter_config.json").write_text(json.dumps(CONFIG | {"task_type": "CAUSAL_LMS"}))
    eptx.convert(saved, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert written == {"task_type": "CAUSAL_LM", "peft_type": "MOELORA", "lora_alpha": ALPHA}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (drop(".lora_gate"), ".lora_gate is missing"),
        (
            put(".lora_B", lambda t: t[:, :, :1]),
            ".lora_B has shape [4, 16, 1]; with the other tensors it is [4, 16",
        ),
        (put(".lora_gate", lambda t: t[:, :2]), ".lora_gate has shape [4, 2]; with the other tensors it is [4, 5]"),
        (put(".lora_task_embedding", lambda t: t[:2]), "modules disagree on the number of tasks: [2, 3]"),
    ],
)
def test_tensors_that_do_not_fit(saved: Path, tmp_path: Path, edit: Change, said: str) -> None:
    eptx.convert(saved, tmp_path / "a")
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    edit(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "a/adapter_model.safetensors")
    with pytest.raises(EptxError) as caught:
        eptx.export(tmp_path / "base", tmp_path / "a", tmp_path / "out", ExportOptions(mode="conditioned"))
    assert caught.value.exit_code == 3 and said in str(caught.value)


def test_what_is_not_converted_says_so(saved: Path, tmp_path: Path) -> None:
    options = ExportOptions(mode="conditioned", allow_pickle=True)
    with pytest.raises(
        EptxError, match=r"saved/adapter_config\.json: is as the released code of MOELoRA saves it"
    ) as caught:
        eptx.export(tmp_path / "base", saved, tmp_path / "out", options)
    assert caught.value.exit_code == 3 and "rewrite the folder with eptx convert" in str(caught.value)
