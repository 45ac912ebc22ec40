"""Budgets: the points that each task of a quantized bundle may lose, as the bundle or the user says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eptx.errors import DataError
from eptx.runtime.measure import Drop

#: The budget of a task with labelled rows that has no other. The interval's lower end must be within it, so a few rows
#: alone fail no bundle. docs/validation.md has the measurements.
DEFAULT_POINTS = 10.0


@dataclass(frozen=True)
class BudgetedDrop:
    """What one task loses, and what it may lose.

    Attributes:
        drop: the measurement.
        budget: points; None where there is none: then `DEFAULT_POINTS` holds, if the rows have labels.
    """

    drop: Drop
    budget: float | None

    @property
    def within(self) -> bool | None:
        """Whether it is within its budget; None without a budget and without labels."""
        if self.budget is not None:
            return self.drop.points <= self.budget
        return self.drop.low <= DEFAULT_POINTS if self.drop.labelled else None

    @property
    def sentence(self) -> str:
        """The loss in words."""
        lost, whose = self.drop, "" if self.drop.labelled else " (against the answers of fp32)"
        budget = "" if self.budget is None else f"; the budget is {self.budget:g}"
        if self.budget is None and self.within is False:
            budget = f"; without a budget the interval may begin at {DEFAULT_POINTS:g}"
        interval = f"95 %: {lost.low:.1f} to {lost.high:.1f}"
        return (
            f"{lost.task}: {lost.metric}{whose} fell {lost.points:.2f} points ({interval}) "
            f"from {lost.reference:.3f} to {lost.found:.3f}{budget}"
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return self.drop.to_json() | {"budget": self.budget, "within": self.within}


def check_points(given: Mapping[str | None, float]) -> None:
    """Raises DataError for a budget that is not a number of points; the key None is of every task that is not named."""
    for task, points in given.items():
        if not (math.isfinite(points) and points >= 0):
            where = f" of {task}" if task is not None else ""
            raise DataError(f"--max-drop{where}: {points} is not a number of points, 0 or more")


def budgets(stated: Mapping[str, float], given: Mapping[str | None, float], tasks: Sequence[str]) -> dict[str, float]:
    """Task -> points that it may lose; a task without a budget is not in it.

    Args:
        stated: the bundle's budgets.
        given: the user's, which come first; the key None is of every task that is not named.
        tasks: of the bundle.

    Raises:
        DataError: the user names an unknown task.
    """
    for task in given:
        if task is not None and task not in tasks:
            raise DataError(f"--max-drop names an unknown task {task!r}; there are {', '.join(tasks)}")
    common = dict.fromkeys(tasks, given[None]) if None in given else {}
    named = {task: points for task, points in given.items() if task is not None}
    return {task: points for task, points in {**stated, **common, **named}.items() if task in tasks}
