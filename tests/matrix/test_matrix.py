"""A part of the matrix, chosen so that every loader and every kind of update is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.matrix.cell import MODES, TOLERANCE, Mode, run
from tests.matrix.made import make
from tests.matrix.refusals import REFUSALS
from tests.matrix.settings import PLAIN, SETTINGS
from tests.matrix.table import OF_SETTINGS, ROWS, row

#: Rows of plain LoRA.
PART = ("BERT, sequence classification", "ViT", "Llama")
#: Settings, on the first row of `OF_SETTINGS`.
PART_OF_SETTINGS = (
    "LoRA, DoRA in some tasks",
    "LoRA, from PiSSA, OLoRA and nothing",
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PART)
def test_an_architecture(name: str, mode: Mode, tmp_path: Path) -> None:
    made = make(row(name), PLAIN, tmp_path / "made")
    outcome = run(row(name), made, mode, tmp_path / "bundle")
    assert outcome.refusal == REFUSALS.get((name, mode), "")
    assert outcome.right, f"{outcome.distance} > {TOLERANCE}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PART_OF_SETTINGS)
def test_a_setting(name: str, mode: Mode, tmp_path: Path) -> None:
    setting = next(setting for setting in SETTINGS if setting.name == name)
    made = make(row(OF_SETTINGS[0]), setting, tmp_path / "made")
    outcome = run(row(OF_SETTINGS[0]), made, mode, tmp_path / "bundle")
    assert outcome.refusal == REFUSALS.get((name, mode), "")
    assert outcome.right, f"{outcome.distance} > {TOLERANCE}"


def test_names_are_of_one_row_each() -> None:
    names = [each.name for each in (*ROWS, *SETTINGS)]
    assert len(set(names)) == len(names)
