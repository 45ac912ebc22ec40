"""MoRE: layers as the released code has them, with its names of parameters, give the outputs and the file."""

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
from tests.exporter.methods.family import BERT, ROWS, SMALL, compare, write_bert
from tests.exporter.methods.released import Change, Layer, drop, outputs, own, put, refused, replaced

RANK, ALPHA = 6, 9
#: As PEFT 0.11 writes them, in part.
CONFIG: dict[str, Any] = {
    **{"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "init_lora_weights": True},
    **{
        "lora_dropout": 0.1,
        "megatron_core": "megatron.core",
        "use_dora": False,
        "rank_pattern": {},
        "loftq_config": {},
    },
}


class More(Layer):
    """The last rank of each of the first tasks: few, many, and more than there are."""

    scaled: bool = False
    chosen = (1, 4, 7)

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__(inner)
        width = inner.in_features
        self.lora_A, self.lora_B = nn.Linear(width, RANK, bias=False), nn.Linear(RANK, inner.out_features, bias=False)
        self.lora_gate = nn.Sequential(nn.Linear(width, 8), nn.Softmax(dim=1))
        self.lora_task_embedding = nn.Embedding(8, width)
        self.lora_A.weight.data.normal_(0, 0.6)
        self.lora_B.weight.data.normal_(0, 0.6)
        first: Any = self.lora_gate[0]
        for task, rank in enumerate(More.chosen):  # the bias decides one of them
            toward = self.lora_task_embedding.weight.data[task]
            first.weight.data[rank] += toward / toward.norm() * (2 + first.weight.data.norm())
        first.bias.data[More.chosen[1]] += 0.5

    def update(self, x: Tensor) -> Tensor:
        """Rank by rank."""
        chosen = int(self.lora_gate(self.lora_task_embedding(torch.tensor([Layer.task])))[0].argmax())
        assert Layer.task is not None and chosen == More.chosen[Layer.task]
        y = torch.zeros(*x.shape[:-1], self.inner.out_features)
        for rank in range(min(chosen + 1, RANK)):
            a, b = self.lora_A.weight[rank], self.lora_B.weight[:, rank]
            if More.scaled:
                a, b = a * (rank + 1) / 8, b * (rank + 1) / 8
            y = y + (x @ a)[..., None] * b
        return y * ALPHA / RANK


def trained(base: Path, kind: str, targets: tuple[str, ...], folder: Path) -> Any:
    model = replaced(base, kind, targets, More)
    folder.mkdir()
    save_file(own(model), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    return model


@pytest.mark.parametrize("scaling", ["eighths", "none"])
@pytest.mark.parametrize("name", SMALL)
def test_every_row_has_the_ranks_of_its_task(
    name: str, scaling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(More, "scaled", scaling == "eighths")
    small = SMALL[name]
    base, inputs = small.write(tmp_path / "base"), small.reads(len(ROWS))
    model = trained(base, small.trained, small.targets, tmp_path / "saved")
    assert eptx.convert(tmp_path / "saved", tmp_path / "adapter", {"rank_scaling": scaling}).method == "MoRE"
    _of_three(tmp_path / "adapter")
    wanted = outputs(model, inputs, (0, 1, 2, None))
    assert compare(small, base, tmp_path / "adapter", inputs, wanted) == "more"


def _of_three(folder: Path) -> None:
    """The released code has room for eight tasks; those past the third were never trained here."""
    change(folder, lambda tensors: tensors.update({n: t[:3] for n, t in tensors.items() if "task_embedding" in n}))


def change(folder: Path, edit: Change) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    edit(tensors)
    save_file({n: tensor.contiguous() for n, tensor in tensors.items()}, folder / "adapter_model.safetensors")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    trained(write_bert(tmp_path / "base"), "BertModel", BERT, tmp_path / "saved")
    return tmp_path / "saved"


def test_all_eight_tasks_have_names(saved: Path, tmp_path: Path) -> None:
    eptx.convert(saved, tmp_path / "a", {"rank_scaling": "none"})
    options = ExportOptions(mode="conditioned", tasks=["cola", "mnli"])
    bundle = eptx.export(tmp_path / "base", tmp_path / "a", tmp_path / "out", options)
    assert [task.name for task in bundle.manifest.tasks] == ["cola", "mnli", *(f"task{i}" for i in range(2, 8)), "base"]


@pytest.mark.parametrize(
    ("config", "settings", "code", "said"),
    [
        ({}, {}, 2, "does not say rank_scaling (eighths if the layer.py that trained it multiplies by scaling_factors"),
        ({}, {"rank_scaling": "both"}, 2, "--set rank_scaling=both: give eighths or none: eighths if the layer.py"),
        ({"r": 8}, {"rank_scaling": "none"}, 3, "lora_A.weight has rank 6; the configuration says 8"),
        ({"use_rslora": True}, {"rank_scaling": "none"}, 5, "use_rslora=True is not supported"),
        ({"rank_pattern": {"query": 3}}, {"rank_scaling": "none"}, 5, "rank_pattern={'query': 3} is not supported"),
        ({"of_tomorrow": 1}, {"rank_scaling": "none"}, 5, "of_tomorrow=1 is not supported"),
    ],
)
def test_settings_that_do_not_fit(
    saved: Path, tmp_path: Path, config: dict[str, Any], settings: dict[str, Any], code: int, said: str
) -> None:
    (saved / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    refused(saved, tmp_path / "out", settings, code, said)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (drop(".lora_gate.0.bias"), ".lora_gate.bias is missing"),
        (drop(".lora_task_embedding.weight"), ".lora_task_embedding.weight is missing"),
        (
            put(".lora_gate.0.weight", lambda t: t[:5]),
            ".lora_gate.weight has shape [5, 16]; with the other",
        ),
        (
            put(".lora_gate.0.bias", lambda t: t[:5]),
            ".lora_gate.bias has shape [5]; with the other tensors",
        ),
        (put(".lora_B.weight", lambda t: t[:, :5]), ".lora_B.weight has shape [16, 5]; with the other tensors it is"),
        (put(".lora_B.weight", lambda t: t, "x.lora_route.weight"), "x.lora_A.weight is missing"),
    ],
)
def test_tensors_that_do_not_fit(saved: Path, tmp_path: Path, edit: Change, said: str) -> None:
    change(saved, edit)
    eptx.convert(saved, tmp_path / "a", {"rank_scaling": "none"})
    with pytest.raises(EptxError) as caught:
        eptx.export(tmp_path / "base", tmp_path / "a", tmp_path / "out", ExportOptions(mode="conditioned"))
    assert caught.value.exit_code == 3 and said in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_setting_that_was_lost(saved: Path, tmp_path: Path) -> None:
    eptx.convert(saved, tmp_path / "a", {"rank_scaling": "none"})
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps({"peft_type": "MORE", "lora_alpha": 9}))
    with pytest.raises(EptxError, match="rank_scaling must be eighths or none, found None: convert the adapter again"):
        eptx.export(tmp_path / "base", tmp_path / "a", tmp_path / "out", ExportOptions(mode="conditioned"))
