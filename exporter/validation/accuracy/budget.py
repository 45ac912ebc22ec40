"""Budgets: the points that each task of a quantized bundle may lose, as the bundle or the user says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
