"""What a quantized bundle loses, and what it may lose: points of a budget, or a distance from the model itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from eptx.runtime.measure import Drop

Measure = Literal["positions", "rows", "tokens"]

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


@dataclass(frozen=True)
class Divergence:
    """The divergence of one task.

    Attributes:
        task: its name.
        output: the output whose value is the largest share of its limit.
        measure: "positions", of an output for every token: the root mean square of the difference over that of the
            values without their mean; "rows", of one for every row: over that of the values; "tokens", of a language
            model: the mean Kullback-Leibler divergence in nats.
        value: the divergence, at most 1e30. limit: the largest accepted value.
        disagreement: of tokens, the share of positions where another one is the likeliest; None for others.
        vectors: how many positions or rows were compared.
    """

    task: str
    output: str
    measure: Measure
    value: float
    limit: float
    disagreement: float | None
    vectors: int

    @property
    def within(self) -> bool:
        """Whether it is accepted."""
        return self.value <= self.limit

    @property
    def sentence(self) -> str:
        """The divergence in words."""
        if self.measure == "tokens":
            size = f"{self.value:.3g} nats a token, and {self.disagreement:.1%} of the likeliest tokens"
        else:
            size = f"{self.value:.3g} times its size"
        return (
            f"{self.task}: quantizing changes {self.output} by {size}; without rows or a budget the limit is "
            f"{self.limit:g} (--data and --max-drop give another)"
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self) | {"within": self.within}
