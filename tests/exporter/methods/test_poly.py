"""Poly and MHR: PEFT's own model says what rows of several tasks are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import PolyConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

import eptx
from eptx.errors import EptxError
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from tests.exporter.methods.family import BERT, ROWS, SMALL, TASKS, TEXTS, compare, tensors_of, write_bert
from tests.matrix.row import Arrays


def trained(base: Path, kind: str, folder: Path, targets: tuple[str, ...], **config: Any) -> Any:
    """PEFT's model, saved; every task mixes the skills in its own way."""
    torch.manual_seed(1)
    settings = {"r": 3, "n_tasks": 3, "n_skills": 4, "init_weights": False, "target_modules": list(targets)} | config
    with quiet():
        model: Any = get_peft_model(getattr(transformers, kind).from_pretrained(base), PolyConfig(**settings)).eval()
        for name, parameter in model.named_parameters():
            if "module_logits" in name:
                parameter.data.normal_(0, 2)
        model.save_pretrained(folder)
    return model


def outputs(model: Any, inputs: Arrays) -> list[dict[str, np.ndarray]]:
    """Of all rows as each task, and as the base."""
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    rows = len(tensors["input_ids"])
    found = []
    with torch.no_grad():
        for task in range(len(TASKS)):
            found.append(model.base_model(**tensors, task_ids=torch.full((rows,), task)))
        with model.disable_adapter():
            found.append(model.base_model(**tensors, task_ids=torch.zeros(rows, dtype=torch.int64)))
    return [tensors_of(each) for each in found]


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("name", SMALL)
def test_every_row_has_the_skills_of_its_task(name: str, splits: int, tmp_path: Path) -> None:
    small = SMALL[name]
    base, inputs = small.write(tmp_path / "base"), small.reads(len(ROWS))
    model = trained(base, small.trained, tmp_path / "adapter", small.targets, n_splits=splits)
    assert compare(small, base, tmp_path / "adapter", inputs, outputs(model, inputs)) == "poly"


def test_a_head_of_all_tasks(tmp_path: Path) -> None:
    base = write_bert(tmp_path / "base")
    model = trained(base, BertForSequenceClassification.__name__, tmp_path / "a", BERT, task_type="SEQ_CLS")
    eptx.export(base, tmp_path / "a", tmp_path / "b", ExportOptions(mode="conditioned"))
    inputs = TEXTS(4)
    wanted = outputs(model, inputs)
    found = eptx.Session(tmp_path / "b").run(inputs, [f"task{row % 3}" for row in ROWS])["logits"]
    np.testing.assert_allclose(found, [wanted[row % 3]["logits"][i] for i, row in enumerate(ROWS)], atol=2e-5)


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def _tensor(ending: str, make: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        tensors = load_file(file)
        name = next(name for name in tensors if name.endswith(ending))
        made = make(tensors.pop(name))
        save_file(tensors | ({} if made is None else {name: made.contiguous()}), file)

    return change


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (_config(n_tasks=4), 3, "poly_router.module_logits has shape [3, 4]; by adapter_config.json it is [4, 4]"),
        (_config(n_skills=2), 3, "poly_lora_A has shape [1, 4, 16, 3]; by adapter_config.json it is [1, 2, 16, 3]"),
        (_config(r="3"), 3, "adapter_config.json: r must be a positive number, found '3'"),
        (_config(poly_type="mhr2"), 5, "adapter_config.json: poly_type='mhr2' is not supported"),
        (_config(per_token=True), 5, "adapter_config.json: per_token=True is not supported: this version of eptx"),
        (_tensor("poly_lora_A", lambda old: None), 3, "poly_lora_A is missing"),
        (_tensor("poly_lora_B", lambda old: old[:, :, :2]), 3, "poly_lora_B has shape [1, 4, 2, 16]; by"),
    ],
    ids=["tasks", "skills", "rank", "type", "setting", "no A", "rank of B"],
)
def test_files_that_contradict_themselves(change: Callable[[Path], None], code: int, said: str, tmp_path: Path) -> None:
    base = write_bert(tmp_path / "base")
    trained(base, "BertModel", tmp_path / "a", BERT)
    change(tmp_path / "a")
    with pytest.raises(EptxError) as refused:
        eptx.export(base, tmp_path / "a", tmp_path / "b", ExportOptions(mode="conditioned"))
    assert refused.value.exit_code == code
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "b").exists()


def test_two_folders(tmp_path: Path) -> None:
    base = write_bert(tmp_path / "base")
    for name in "ab":
        trained(base, "BertModel", tmp_path / name, BERT)
    with pytest.raises(EptxError, match="a folder of Poly holds all its tasks: give one adapter folder"):
        eptx.export(base, [tmp_path / "a", tmp_path / "b"], tmp_path / "c", ExportOptions(mode="conditioned"))
