"""`python -m tests.matrix`: runs the whole matrix and writes docs/supported.md.

With words, it runs the rows and settings that have one of them in their names, and writes nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

from tests.matrix.cell import MODES, TOLERANCE, Mode, Outcome
from tests.matrix.jobs import Job, jobs, outcomes
from tests.matrix.page import page
from tests.matrix.refusals import REFUSALS

PAGE = Path(__file__).parents[2] / "docs" / "supported.md"


def fault(job: Job, mode: Mode, outcome: Outcome | str) -> str:
    """What is wrong with a cell, or ""."""
    if isinstance(outcome, str):
        return outcome
    listed = REFUSALS.get((job.name, mode))
    if outcome.distance is None:
        return "" if outcome.refusal == listed else f"refused, exit code {outcome.code}: {outcome.refusal}"
    if listed is not None:
        return "is listed among the refusals, and exports"
    return "" if outcome.right else f"is {outcome.distance:.2g} from PEFT's, more than {TOLERANCE:.0e}"


def main() -> int:
    """The number of faults is the exit code, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    arguments = parser.parse_args()
    todo = jobs(arguments.words)
    faults, found = 0, {}
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.jobs, maxtasksperchild=20) as pool:
        for job, cells in zip(todo, pool.imap(outcomes, todo), strict=True):
            found[job.row, job.setting] = cells
            for mode, outcome in cells.items():
                wrong = fault(job, mode, outcome)
                faults += bool(wrong)
                said = f"{outcome.distance:.1e}" if isinstance(outcome, Outcome) and outcome.right else "as listed"
                print(f"{job.row} | {job.setting} | {mode}: {wrong or said}", flush=True)
    print(f"{len(todo) * len(MODES)} cells, {faults} faults")
    if not arguments.words and not faults:
        PAGE.write_text(page({key: dict(cells) for key, cells in found.items()}))  # type: ignore[arg-type]
    return min(1, faults)


if __name__ == "__main__":
    raise SystemExit(main())
