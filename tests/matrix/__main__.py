"""`python -m tests.matrix`: runs the matrix, and writes docs/supported.md when every cell has a result without a fault.

Results are kept in build/matrix.jsonl. Without words, the jobs run that have none yet, or one with a fault. With words,
the rows and settings run that have one of them in their names, whether they have a result or not.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.matrix.cell import TOLERANCE, Mode, Outcome
from tests.matrix.jobs import Job, jobs, outcomes
from tests.matrix.kept import FILE, Found, keep, kept
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


def faults(job: Job, found: Found) -> list[str]:
    """What is wrong with the cells of a job."""
    return [wrong for mode, outcome in found.items() if (wrong := fault(job, mode, outcome))]


def run(todo: Sequence[Job], processes: int) -> None:
    """Runs jobs, and keeps what became of them."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, maxtasksperchild=20) as pool:
        for job, found in zip(todo, pool.imap(outcomes, todo), strict=True):
            keep(job, found)
            for mode, outcome in found.items():
                said = f"{outcome.distance:.1e}" if isinstance(outcome, Outcome) and outcome.right else "as listed"
                print(f"{job.row} | {job.setting} | {mode}: {fault(job, mode, outcome) or said}", flush=True)


def write_page(results: Mapping[Job, Found]) -> bool:
    """Writes the page, or says what it lacks; whether it wrote."""
    every = jobs(())
    lacks = [job for job in every if job not in results]
    wrong = [job for job in every if job in results and faults(job, results[job])]
    cells = [cell for job in every for cell in results.get(job, {}).values() if isinstance(cell, Outcome)]
    distances = [cell.distance for cell in cells if cell.distance is not None]
    print(
        f"{len(every)} jobs: {len(lacks)} have no result, {len(wrong)} a fault; {len(distances)} cells export, "
        f"{len(cells) - len(distances)} are refused; the largest distance is {max(distances, default=0):.1e}"
    )
    if lacks or wrong:
        return False
    PAGE.write_text(page({(job.row, job.setting): results[job] for job in every}))  # type: ignore[misc]
    return True


def main() -> int:
    """0: no job that ran has a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("--anew", action="store_true", help="forget the results of earlier runs")
    parser.add_argument("--page", action="store_true", help="run nothing; write the page from the results")
    arguments = parser.parse_args()
    if arguments.anew:
        FILE.unlink(missing_ok=True)
    results, todo = kept(), [] if arguments.page else jobs(arguments.words)
    if not arguments.words:
        todo = [job for job in todo if job not in results or faults(job, results[job])]
    if results:
        print(f"{len(results)} jobs have results of earlier runs; --anew forgets them")
    run(todo, arguments.jobs)
    results = kept()
    written = write_page(results)
    return int(not written if arguments.page else any(faults(job, results[job]) for job in todo))


if __name__ == "__main__":
    raise SystemExit(main())
