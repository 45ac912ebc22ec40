"""What there is to run: every row with plain LoRA, and every setting on some rows."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.matrix.cell import MODES, Mode, Outcome, run
from tests.matrix.made import make
from tests.matrix.settings import PLAIN, SETTINGS
from tests.matrix.table import OF_SETTINGS, ROWS, row


@dataclass(frozen=True)
class Job:
    """All modes of a row with a setting."""

    row: str
    setting: str

    @property
    def name(self) -> str:
        """What its cells are called in `REFUSALS`."""
        return self.row if self.setting == PLAIN.name else self.setting


def jobs(words: Iterable[str]) -> list[Job]:
    """Every row with plain LoRA, and every setting on some rows."""
    every = [Job(each.name, PLAIN.name) for each in ROWS]
    every += [Job(name, each.name) for each in SETTINGS if each is not PLAIN for name in OF_SETTINGS]
    words = [word.lower() for word in words]
    return [job for job in every if not words or any(word in f"{job.row} {job.setting}".lower() for word in words)]


def outcomes(job: Job) -> dict[Mode, Outcome | str]:
    """What became of the cells of a job; a text where something broke."""
    import torch

    torch.set_num_threads(1)
    setting = next(each for each in SETTINGS if each.name == job.setting)
    found: dict[Mode, Outcome | str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            made = make(row(job.row), setting, Path(scratch) / "made")
        except Exception:
            return dict.fromkeys(MODES, traceback.format_exc())
        for mode in MODES:
            try:
                found[mode] = run(row(job.row), made, mode, Path(scratch) / mode)
            except Exception:
                found[mode] = traceback.format_exc()
    return found
