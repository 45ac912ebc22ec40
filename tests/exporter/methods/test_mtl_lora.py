"""MTL-LoRA: layers as the released code has them, with its names of parameters, give the outputs and the file."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import eptx
from eptx.errors import EptxError
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from tests.exporter.methods.family import BERT, ROWS, SMALL, TASKS, TEXTS, compare, tensors_of, write_bert
from tests.matrix.row import Arrays

RANK, ALPHA, TEMPERATURE = 3, 5, 0.4
SETTINGS = {"lora_alpha": ALPHA, "temperature": TEMPERATURE}


class Layer(nn.Module):
    """One linear layer; `task` is of all rows, None for the layer alone."""

    def __init__(self, inner: nn.Linear, diagonal: bool, scaler: bool) -> None:
        super().__init__()
        self.inner, self.task = inner, None
        count = len(TASKS)
        self.lora_A = nn.Parameter(0.3 * torch.randn(1, RANK, inner.in_features))
        self.lora_lambdas = nn.Parameter(torch.randn(count, RANK) if diagonal else torch.randn(count, RANK, RANK))
        self.lora_B = nn.Parameter(0.3 * torch.randn(2, inner.out_features, RANK))
        self.lora_B_w = nn.Parameter(torch.randn(count, 2))
        self.lora_scaler = nn.Parameter(torch.randn(())) if scaler else None

    @property
    def weight(self) -> Tensor:
        """T5 asks for its type."""
        return self.inner.weight

    def forward(self, x: Tensor) -> Tensor:
        """Each B by itself, weighed afterwards."""
        y: Tensor = self.inner(x)
        if self.task is None:
            return y
        hidden = torch.nn.functional.linear(x, self.lora_A[0])
        between = self.lora_lambdas[self.task]
        hidden = hidden * between if between.ndim == 1 else torch.nn.functional.linear(hidden, between)
        shares = (self.lora_B_w[self.task] / TEMPERATURE).softmax(0)
        for share, each in zip(shares, self.lora_B, strict=True):
            update = torch.nn.functional.linear(hidden, each) * share * ALPHA / RANK
            y = y + (update if self.lora_scaler is None else update * self.lora_scaler.sigmoid())
        return y


def trained(
    base: Path, kind: str, targets: tuple[str, ...], file: Path, *, diagonal: bool = False, scaler: bool = False
) -> Any:
    """A model with such layers, and what the released code saves of them."""
    torch.manual_seed(3)
    with quiet():
        model: Any = getattr(transformers, kind).from_pretrained(base).eval()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(targets):
            model.set_submodule(name, Layer(module, diagonal, scaler))
    file.parent.mkdir(exist_ok=True)
    torch.save({name: tensor for name, tensor in model.state_dict().items() if ".lora_" in name}, file)
    return model


def outputs(model: Any, inputs: Arrays) -> list[dict[str, np.ndarray]]:
    """Of all rows as each task, and as the base."""
    tensors, found = {name: torch.from_numpy(array) for name, array in inputs.items()}, []
    for task in (0, 1, 2, None):
        for module in model.modules():
            if isinstance(module, Layer):
                module.task = task  # type: ignore[assignment]
        with torch.no_grad():
            found.append(tensors_of(model(**tensors)))
    return found


@pytest.mark.parametrize(("diagonal", "scaler"), [(False, False), (True, True)])
@pytest.mark.parametrize("name", SMALL)
def test_every_row_mixes_as_its_task_does(name: str, diagonal: bool, scaler: bool, tmp_path: Path) -> None:
    small = SMALL[name]
    base, inputs = small.write(tmp_path / "base"), small.reads(len(ROWS))
    model = trained(base, small.trained, small.targets, tmp_path / "saved" / "a.pt", diagonal=diagonal, scaler=scaler)
    made = eptx.convert(tmp_path / "saved", tmp_path / "adapter", SETTINGS)
    assert (made.method, made.source) == ("MTL-LoRA", tmp_path / "saved" / "a.pt")
    assert compare(small, base, tmp_path / "adapter", inputs, outputs(model, inputs)) == "mtl_lora"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    trained(write_bert(tmp_path / "base"), "BertModel", BERT, tmp_path / "saved" / "a.pt")
    return tmp_path / "saved" / "a.pt"


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({"lora_alpha": 4}, 2, "a.pt does not say temperature (of the softmax over the B matrices; the released code "),
        ({}, 2, "give --set lora_alpha=VALUE --set temperature=VALUE"),
        ({**SETTINGS, "r": 4}, 2, "--set r: is not asked for; known are "),
    ],
)
def test_what_is_asked_for(saved: Path, tmp_path: Path, settings: dict[str, Any], code: int, said: str) -> None:
    with pytest.raises(EptxError) as refused:
        eptx.convert(saved, tmp_path / "out", settings)
    assert refused.value.exit_code == code
    assert said in str(refused.value) and not (tmp_path / "out").exists()


def test_which_file(saved: Path, tmp_path: Path) -> None:
    (saved.parent / "b.pt").write_bytes(saved.read_bytes())
    with pytest.raises(
        EptxError, match=r"holds 2 files of tensors: give the one you mean: .*a\.pt, .*b\.pt"
    ) as refused:
        eptx.convert(saved.parent, tmp_path / "out", SETTINGS)
    assert refused.value.exit_code == 2
    with pytest.raises(EptxError, match=r"base: holds no \.bin, \.pt or \.pth file") as refused:
        eptx.convert(_without_weights(tmp_path / "base"), tmp_path / "out", SETTINGS)
    assert refused.value.exit_code == 3


def _without_weights(folder: Path) -> Path:
    (folder / "model.safetensors").unlink()
    return folder


class _Program:
    """A pickle that runs a program when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("content", ["a program", "a number", "no pickle"])
def test_pickles_that_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "a.bin"
    if content == "a number":
        torch.save({"x.lora_lambdas": 3}, file)
    else:
        file.write_bytes(pickle.dumps(_Program(tmp_path / "ran")) if content == "a program" else b"\0" * 99)
    with pytest.raises(EptxError, match=r"^a\.bin: ") as refused:
        eptx.convert(file, tmp_path / "out", SETTINGS)
    assert refused.value.exit_code == 3 and "\n" not in str(refused.value)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_there_already(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(EptxError, match="base is there already: give another folder"):
        eptx.convert(saved, tmp_path / "base", SETTINGS)


def _drop(name: str) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        del tensors[next(key for key in tensors if key.endswith(name))]

    return change


def _cut(name: str) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        key = next(key for key in tensors if key.endswith(name))
        tensors[key] = tensors[key][:-1].contiguous()

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_drop(".lora_lambdas"), ".lora_lambdas is missing"),
        (_drop(".lora_B_w"), ".lora_B_w is missing"),
        (_cut(".lora_B"), ".lora_B has shape [1, 16, 3]; with the other tensors it is [2, 16, 3]: convert the adapter"),
        (_cut(".lora_lambdas"), ".lora_lambdas has shape [2, 3, 3]; with the other tensors it is [3, 3, 3]"),
    ],
)
def test_tensors_that_do_not_fit(
    saved: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], None], said: str
) -> None:
    eptx.convert(saved, tmp_path / "a", SETTINGS)
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "a" / "adapter_model.safetensors")
    with pytest.raises(EptxError) as refused:
        eptx.export(tmp_path / "base", tmp_path / "a", tmp_path / "out", ExportOptions(mode="conditioned"))
    assert refused.value.exit_code == 3 and said in str(refused.value)


def test_a_setting_of_another_version(saved: Path, tmp_path: Path) -> None:
    eptx.convert(saved, tmp_path / "a", SETTINGS)
    file = tmp_path / "a" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"per_token": True}))
    with pytest.raises(EptxError, match="per_token=True is not supported"):
        eptx.export(tmp_path / "base", tmp_path / "a", tmp_path / "out", ExportOptions(mode="conditioned"))


def test_merged_layers_are_refused(tmp_path: Path) -> None:
    names = {"h.0.attn.lora_A": (1, 6, 4), "h.0.attn.lora_lambdas": (2, 6), "h.0.attn.lora_B_q": (2, 4, 3)}
    torch.save({name: torch.ones(shape) for name, shape in names.items()}, tmp_path / "a.pt")
    with pytest.raises(EptxError, match=r"h\.0\.attn\.lora_B_q: a layer that computes queries, keys and values in one"):
        eptx.convert(tmp_path / "a.pt", tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


def test_texts_of_the_task_by_name(saved: Path, tmp_path: Path) -> None:
    eptx.convert(saved, tmp_path / "a", SETTINGS)
    eptx.export(tmp_path / "base", tmp_path / "a", tmp_path / "b", ExportOptions(mode="conditioned", tasks=TASKS))
    session = eptx.Session(tmp_path / "b")
    one, other = (session.run(TEXTS(2), task)["last_hidden_state"] for task in ("a", "b"))
    assert np.abs(one - other).max() > 0.05
