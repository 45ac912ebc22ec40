"""What a calibration is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from eptx.errors import UsageError
from eptx.exporter.validation.accuracy.budget import budgets, check_points
from eptx.runtime.measure import Source
from eptx.runtime.measure.rows import ROWS_PER_TASK

Goal = Literal["size", "latency"]

#: Points of its metric that a task may lose, where nothing else is said.
MAX_DROP = 0.5


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """Settings of a calibration.

    Attributes:
        data: where the rows are that everything is measured on.
        rows: how many of a task to use at most.
        max_drop: task -> points of its metric that it may lose; the key None is of every other task.
        metrics: task -> metric, where it is not the usual one of its answers.
        goal: what is best among what keeps to the budget: the smallest or the fastest bundle.
        threads: of ONNX Runtime; None lets it choose.
    """

    data: Sequence[Source]
    rows: int = ROWS_PER_TASK
    max_drop: Mapping[str | None, float] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    goal: Goal = "size"
    threads: int | None = None

    def check(self) -> None:
        """Compares the settings with each other.

        Raises:
            UsageError: there is no data.
            DataError: a budget is not a number of points.
        """
        if not self.data:
            raise UsageError("a calibration measures on data: give --calibration-data")
        check_points(self.max_drop)

    def budget(self, tasks: Sequence[str]) -> dict[str, float]:
        """Points that each task may lose.

        Raises:
            DataError: a budget names an unknown task.
        """
        return budgets(dict.fromkeys(tasks, MAX_DROP), self.max_drop, tasks)

    @property
    def paths(self) -> tuple[tuple[str | None, Path], ...]:
        """Where the data is, with the task that all rows are of; rows that were given in Python are nowhere."""
        return tuple((source.task, Path(source.rows)) for source in self.data if isinstance(source.rows, str | Path))
