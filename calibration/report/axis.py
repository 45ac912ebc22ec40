"""The scale of a plot."""

from __future__ import annotations

import math
from dataclasses import dataclass

_ROOM = 0.06


@dataclass(frozen=True)
class Axis:
    """A linear scale with round ticks.

    Attributes:
        low: value at the start. high: at the end.
        start: pixel of the low value. end: of the high one; smaller than the start when the axis points up.
        step: between ticks.
    """

    low: float
    high: float
    start: float
    end: float
    step: float

    def at(self, value: float) -> float:
        """The pixel of a value, to a tenth; values beyond the ends are at the ends."""
        part = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + part * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[float]:
        """Round values on the axis."""
        first, last = math.ceil(self.low / self.step - 1e-9), math.floor(self.high / self.step + 1e-9)
        return [round(index * self.step, 10) for index in range(first, last + 1)]


def axis(values: list[float], start: float, end: float, *, ticks: int = 5) -> Axis:
    """An axis that holds all values, with some room past them.

    Args:
        values: at least one.
        start: pixel of the smallest.
        end: pixel of the largest.
        ticks: how many there are, about.
    """
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / ticks
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough * 0.999)
    return Axis(low - _ROOM * (high - low), high + _ROOM * (high - low), start, end, step)
