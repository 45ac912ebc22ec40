"""Adapters that today's code exports as another model than was trained: validation says so, and where.

The trained model is the class that the adapter was trained on, with all that PEFT or the released scripts saved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.validation import Report, ValidateOptions, validate_bundle
from tests.exporter.trained.models import peft_model, save, write_base

GOLDEN = Path(__file__).parents[2] / "golden"


def verdict(base: Path, adapter: Path, out: Path, **options: Any) -> Report:
    bundle = export_bundle(base, [adapter], out, ExportOptions(**options))
    return validate_bundle(bundle.path, ValidateOptions(providers=["cpu"]))


@pytest.mark.parametrize("mode", ["static", "conditioned"])
def test_a_saved_classifier_on_a_bare_vit(tmp_path: Path, mode: str) -> None:
    base = write_base("vit", "ViTModel", tmp_path / "base")
    settings: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["classifier"]}
    adapter = save(peft_model(base, "ViTForImageClassification", labels=5, **settings), tmp_path / "adapter")
    report = verdict(base, adapter, tmp_path / "b", mode=mode)
    assert report.passed, report.reason


@pytest.mark.parametrize("mode", ["static", "conditioned"])
def test_token_classes_on_a_base_with_a_pooler(tmp_path: Path, mode: str) -> None:
    base = write_base("bert", "BertModel", tmp_path / "base")
    settings: dict[str, Any] = {"target_modules": ["query", "value"], "task_type": "TOKEN_CLS"}
    adapter = save(peft_model(base, "BertForTokenClassification", labels=5, **settings), tmp_path / "adapter")
    report = verdict(base, adapter, tmp_path / "b", mode=mode)
    assert report.passed, report.reason
