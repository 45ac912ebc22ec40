"""How many points each task of a quantized bundle may lose: as the bundle says, or as the user says instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eptx.runtime.measure import Drop

#: Points that a task with labelled rows may lose where nobody has said: the interval's lower end is held against it, so
#: few rows accuse nobody. docs/validation.md has what was measured.
DEFAULT_POINTS = 10.0


@dataclass(frozen=True)
class Judged:
    """What one task loses, and whether it may.

    Attributes:
        drop: what was measured.
        budget: points that it may lose; None where nobody has said: `DEFAULT_POINTS`, if the rows have labels.
    """

    drop: Drop
    budget: float | None

    @property
    def within(self) -> bool | None:
        """Whether it keeps to its budget; None if it has none, and no labels."""
        if self.budget is not None:
            return self.drop.points <= self.budget
        return self.drop.low <= DEFAULT_POINTS if self.drop.labelled else None

    @property
    def sentence(self) -> str:
        """What was lost, in words."""
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
