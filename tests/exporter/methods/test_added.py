"""A method that is one folder, and is exported, validated and run though eptx has never heard of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import eptx
from eptx.errors import AdapterError, NotSupportedError
from eptx.exporter import methods
from eptx.exporter.options import ExportOptions
from eptx.exporter.validation.options import ValidateOptions
from tests.exporter.bases.conftest import Tiny
from tests.exporter.validation.adapters import linear_shapes

MODULES = ("query", "output.dense")


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is where methods are looked for."""
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(Path(__file__).parent / "added")])


def write_shift(folder: Path, base: Path, strength: float = 1.0) -> Path:
    rng = np.random.default_rng(7)
    tensors = {
        f"base_model.model.{module}.shift_v": (strength * rng.normal(size=(3, out))).astype(np.float32)
        for module, (out, _) in linear_shapes(base, MODULES).items()
    }
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "SHIFT"}))
    return folder


@pytest.mark.usefixtures("added")
def test_a_new_method(tmp_path: Path) -> None:
    base = Tiny(tmp_path).folder("bert")
    adapter = write_shift(tmp_path / "adapter", base)
    bundle = eptx.export(base, [adapter], tmp_path / "bundle", ExportOptions(mode="conditioned"))
    report = eptx.validate(bundle.path)
    assert report.passed, report.reason
    session = eptx.Session(bundle.path)
    ids = np.array([[2, 5, 3]])
    first, second, off = (session.run({"input_ids": ids}, task)["logits"] for task in ("task0", "task1", "base"))
    assert np.abs(first - second).max() > 1e-3 and np.abs(first - off).max() > 1e-3
    other = write_shift(tmp_path / "other", base, strength=1.01)
    assert not eptx.validate(bundle.path, ValidateOptions(base=base, adapters=[other])).passed
    with pytest.raises(NotSupportedError, match="Shift has no router"):
        eptx.export(base, [adapter], tmp_path / "dynamic", ExportOptions(mode="dynamic"))


def test_without_its_folder_it_is_refused(tmp_path: Path) -> None:
    base = Tiny(tmp_path).folder("bert")
    adapter = write_shift(tmp_path / "adapter", base)
    with pytest.raises(AdapterError, match="SHIFT' is not a method that eptx reads: EPT, LoRA, TuckA"):
        eptx.export(base, [adapter], tmp_path / "bundle", ExportOptions(mode="conditioned"))
