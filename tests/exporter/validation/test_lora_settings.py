"""Adapters of LoRA's settings in one bundle: validation passes, and finds each of them gone wrong.

The adapters are PEFT's own, and so is the reference: it puts DoRA's gain, PiSSA's residual and the biases where they
were in training.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertModel

from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from eptx.exporter.validation import ValidateOptions, validate_bundle
from tests.exporter.validation.wrong.edits import numbers, scaled

Q, K = "encoder.layer.0.attention.self.query", "encoder.layer.0.attention.self.key"
#: Task -> its settings.
SETTINGS: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "biases": {"bias": "all"},
    "lora_bias": {"lora_bias": True},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditioned bundle of all of them."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("settings")
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "hidden_size": 24, "intermediate_size": 36, "max_position_embeddings": 20}
    BertModel(BertConfig(**sizes, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(folder / "base")
    with quiet():
        for index, (task, settings) in enumerate(SETTINGS.items()):
            torch.manual_seed(index)
            base = BertModel.from_pretrained(folder / "base")
            model = get_peft_model(
                base, LoraConfig(r=3, lora_alpha=5, target_modules=["query", "key", "dense"], **settings)
            )
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.requires_grad:
                        parameter.add_(0.05 * torch.randn_like(parameter))
            model.save_pretrained(folder / task)
    folders = [folder / task for task in SETTINGS]
    export_bundle(folder / "base", folders, folder / "bundle", ExportOptions(mode="conditioned", tasks=list(SETTINGS)))
    return folder / "bundle"


def test_honest(bundle: Path) -> None:
    report = validate_bundle(bundle)
    assert report.passed
    verdicts = {task.task: task.verdict for provider in report.providers for task in provider.tasks}
    assert verdicts == dict.fromkeys([*SETTINGS, "base"], "pass")


@pytest.mark.parametrize(
    "damage",
    [
        numbers(scaled(1.001, 0), f"{Q}.gain"),
        numbers(scaled(1.001, 4), f"{Q}.gain"),  # a row of base
        numbers(scaled(1.01, 3), f"{K}.shift"),
        numbers(scaled(0.0, 1), f"{Q}.lora_A"),
        numbers(scaled(1.01), f"{Q}.bias.bank"),
    ],
    ids=["gain of a task", "gain of base", "shift", "factors of a residual", "bias"],
)
def test_wrong(bundle: Path, damage: Callable[[Path], Any], tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    damage(copy)
    folders = [bundle.parent / task for task in SETTINGS]
    assert not validate_bundle(copy, ValidateOptions(base=bundle.parent / "base", adapters=folders)).passed
