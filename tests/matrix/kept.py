"""The results that earlier runs left in build/matrix.jsonl, so that a run can be stopped and taken up again.

A line is one job; of several lines of one job the last counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tests.matrix.cell import MODES, Mode, Outcome
from tests.matrix.jobs import Job

FILE = Path(__file__).parents[2] / "build" / "matrix.jsonl"
#: What became of each mode of a job; a text where something broke.
Found = Mapping[Mode, Outcome | str]


def keep(job: Job, found: Found) -> None:
    """Adds a line."""
    cells = {mode: each if isinstance(each, str) else asdict(each) for mode, each in found.items()}
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("a") as file:
        file.write(json.dumps({**asdict(job), "cells": cells}) + "\n")


def kept() -> dict[Job, Found]:
    """The last result of each job."""
    lines = FILE.read_text().splitlines() if FILE.exists() else []
    return {Job(line["row"], line["setting"]): _found(line["cells"]) for line in map(json.loads, lines)}


def _found(cells: dict[str, dict[str, object] | str]) -> Found:
    read = {mode: cells[mode] for mode in MODES}
    return {mode: each if isinstance(each, str) else Outcome(**each) for mode, each in read.items()}  # type: ignore[arg-type]
