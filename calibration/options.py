"""A precision that is found, or measured, on data: its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from eptx.errors import UsageError
from eptx.exporter.options import Precision, PrecisionSearch
from eptx.runtime.measure import Source
from eptx.runtime.measure.budget import budgets, check_points
from eptx.runtime.measure.rows import ROWS_PER_TASK

Goal = Literal["size", "latency"]

#: Points of its metric that a task may lose where the user says nothing.
MAX_DROP = 0.5


@dataclass(frozen=True, kw_only=True)
class Search(PrecisionSearch):
    """A precision that is found, or measured, on data.

    Attributes:
        data: where the rows are that everything is measured on.
        rows: how many of a task to use at most.
        max_drop: task -> points of its metric that it may lose; the key None is for every other task.
        metrics: task -> metric, where it is not the usual one of its answers.
        goal: which bundle within the budget is best: the smallest or the fastest.
        threads: of ONNX Runtime; None lets it choose.
        only: this precision is measured, and nothing else is tried; None searches all.
    """

    data: Sequence[Source]
    rows: int = ROWS_PER_TASK
    max_drop: Mapping[str | None, float] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    goal: Goal = "size"
    threads: int | None = None
    only: Precision | None = None

    def check(self) -> None:
        """Compares the settings with each other.

        Raises:
            UsageError: there is no data.
            DataError: a budget is not a number of points.
        """
        if not self.data:
            raise UsageError(f"--precision {self.only or 'auto'} measures on data: give --calibration-data")
        check_points(self.max_drop)

    def budget(self, tasks: Sequence[str]) -> dict[str, float]:
        """Points that each task may lose.

        Raises:
            DataError: a budget names an unknown task.
        """
        return budgets(dict.fromkeys(tasks, MAX_DROP), self.max_drop, tasks)

    @property
    def paths(self) -> tuple[tuple[str | None, Path], ...]:
        """The files and folders of the data, each with the task that all its rows are of; rows in Python have none."""
        return tuple((source.task, Path(source.rows)) for source in self.data if isinstance(source.rows, str | Path))
