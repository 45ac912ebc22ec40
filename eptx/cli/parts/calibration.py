"""The options of the commands that measure on data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from eptx.errors import DataError, UsageError

if TYPE_CHECKING:
    from eptx.calibration import Search
    from eptx.exporter.options import Precision

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
            help="Which bundle within the budget is best: the smallest or the fastest.",
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
            help="Points of its metric that a task may drop by (default: 0.5 for every task).",
        ),
    ):
        command = option(command)
    return command


def read_precision(settings: dict[str, Any]) -> Precision | Search:
    """Takes the precision, the data and the options above out of a command's settings.

    Raises:
        UsageError: one is not of its form, or is of no use without data.
        DataError: a budget is not a number.
    """
    precision, data = settings.pop("precision"), settings.pop("calibration_data")
    if data:
        return read_search(settings, data, None if precision == "auto" else precision)
    if precision == "auto":
        raise UsageError("--precision auto measures on data: give --calibration-data")
    given = {"--max-drop": "max_drop", "--metric": "metrics", "--rows": "rows"}
    unused = next((flag for flag, name in given.items() if settings[name]), None)
    if unused is not None:
        raise UsageError(f"{unused} is about rows to measure on: give --calibration-data")
    for name in ("max_drop", "metrics", "rows", "goal", "threads"):
        del settings[name]
    plain: Precision = precision
    return plain


def read_search(settings: dict[str, Any], data: Sequence[str], only: Precision | None = None) -> Search:
    """Takes the options above out of a command's settings, for a search on data.

    Raises:
        UsageError: one is not of its form.
        DataError: a budget is not a number.
    """
    from eptx.calibration import Search
    from eptx.runtime.measure import Source

    rows = settings.pop("rows")
    return Search(
        data=[Source.parse(text) for text in data],
        max_drop=points(settings.pop("max_drop")),
        metrics=dict(map(_metric, settings.pop("metrics"))),
        goal=settings.pop("goal"),
        threads=settings.pop("threads"),
        only=only,
        **({} if rows is None else {"rows": rows}),
    )


@contextmanager
def resuming() -> Iterator[None]:
    """A block that measures; where it is interrupted, it says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("the results so far are kept; the same command goes on from there", err=True)
        raise


def points(texts: Sequence[str]) -> dict[str | None, float]:
    """Task -> points; the key None is for every other task.

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
