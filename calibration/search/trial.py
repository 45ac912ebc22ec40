"""What one way to store the model costs, and how far it drops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from eptx.runtime.measure import Drop

#: Task -> points of its metric that it may drop.
Budget = Mapping[str, float]


@dataclass(frozen=True)
class Trial:
    """One quantization config, measured.

    Attributes:
        name: of the config.
        kept: names of layers in float16.
        bytes: of the bundle. bytes_ratio: over fp32.
        milliseconds: of a run. latency_ratio: over fp32, measured side by side.
        drops: of each task; numbers that could not be measured are not finite.
    """

    name: str
    kept: tuple[str, ...]
    bytes: int
    bytes_ratio: float
    milliseconds: float
    latency_ratio: float
    drops: tuple[Drop, ...]

    def within(self, budget: Budget) -> bool:
        """Whether every task keeps to its budget; a task without one may drop by any number of points."""
        return all(is_within(drop, budget) for drop in self.drops)

    def worst(self, budget: Budget) -> Drop:
        """The drop that is furthest past its budget, or nearest to it."""
        return max(self.drops, key=lambda drop: past(drop, budget))

    @property
    def mean(self) -> float:
        """Points, the mean over all tasks."""
        return sum(drop.points for drop in self.drops) / len(self.drops)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self) | {"kept": list(self.kept), "drops": [drop.to_json() for drop in self.drops]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Trial:
        """What `to_json` gave."""
        kept, drops = tuple(value["kept"]), tuple(Drop(**drop) for drop in value["drops"])
        return cls(**{**value, "kept": kept, "drops": drops})


def past(drop: Drop, budget: Budget) -> float:
    """Points past the budget, negative while some are left; infinite where nothing could be measured."""
    return drop.points - budget.get(drop.task, 0.0) if math.isfinite(drop.points) else math.inf


def is_within(drop: Drop, budget: Budget) -> bool:
    """Whether a drop keeps to its task's budget."""
    return math.isfinite(drop.points) and drop.points <= budget.get(drop.task, math.inf)
