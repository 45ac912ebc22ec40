"""The options of the commands that measure on data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from eptx.errors import DataError, UsageError

if TYPE_CHECKING:
    from eptx.calibration import CalibrationOptions

F = TypeVar("F", bound=Callable[..., Any])


def calibration_options(command: F) -> F:
    """``--max-drop``, ``--metric``, ``--rows``, ``--goal`` and ``--threads``."""
    for option in (
        click.option("--threads", type=click.IntRange(min=1), help="Threads of ONNX Runtime (default: all)."),
        click.option(
            "--goal",
            type=click.Choice(["size", "latency"]),
            default="size",
            show_default=True,
            help="What is best among what keeps to the budget: the smallest or the fastest bundle.",
        ),
        click.option("--rows", type=click.IntRange(min=1), help="Rows of each task to measure on (default: 128)."),
        click.option(
            "--metric",
            "metrics",
            multiple=True,
            metavar="TASK=NAME",
            help="accuracy, matthews, f1, pearson, spearman (default: accuracy, or pearson for one logit).",
        ),
        click.option(
            "--max-drop",
            multiple=True,
            metavar="[TASK=]POINTS",
            help="Points of its metric that a task may lose (default: 0.5 of every task).",
        ),
    ):
        command = option(command)
    return command


def read_options(settings: dict[str, Any], data: Sequence[str]) -> CalibrationOptions | None:
    """Takes the options above out of a command's settings; None when there is no data.

    Raises:
        UsageError: one is not of its form, or is of no use without data.
        DataError: a budget is not a number.
    """
    from eptx.calibration import CalibrationOptions
    from eptx.runtime.measure import Source

    rows, goal, threads = settings.pop("rows"), settings.pop("goal"), settings.pop("threads")
    drops, metrics = settings.pop("max_drop"), settings.pop("metrics")
    if not data:
        given = {"--max-drop": drops, "--metric": metrics, "--rows": rows}
        unused = next((name for name, value in given.items() if value), None)
        if unused is not None:
            raise UsageError(f"{unused} is about rows to measure on: give --calibration-data")
        return None
    return CalibrationOptions(
        data=[Source.parse(text) for text in data],
        max_drop=points(drops),
        metrics=dict(map(_metric, metrics)),
        goal=goal,
        threads=threads,
        **({} if rows is None else {"rows": rows}),
    )


@contextmanager
def resuming() -> Iterator[None]:
    """A block that says how it goes on when it is interrupted while it measures."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("what was measured so far is kept; the same command goes on from there", err=True)
        raise


def points(texts: Sequence[str]) -> dict[str | None, float]:
    """Task -> points; the key None is of every other task.

    Raises:
        DataError: one is not a number.
    """
    found: dict[str | None, float] = {}
    for text in texts:
        task, equals, number = text.rpartition("=")
        try:
            found[task if equals else None] = float(number)
        except ValueError:
            raise DataError(f"--max-drop must be a number of points, 0 or more, not {number!r}") from None
    return found


def _metric(text: str) -> tuple[str, str]:
    task, found, name = text.rpartition("=")
    if not found:
        raise UsageError(f"--metric {text!r}: expected TASK=NAME, such as cola=matthews")
    return task, name
