"""The distance of two results, pooled over batches, and its multiple of the noise floor.

For one task and one module or graph output, with x the float64 reference, r the reference in the export's own type
and y the bundle's result, over all compared rows and positions:

    ratio = max( rms(y - x) / max(rms(r - x), eps rms(x)),  max|y - x| / 2 max(max|r - x|, eps max|x|) )

The root mean square varies little between random inputs and finds small errors everywhere. The largest error finds one
in a single place; it varies twice as much between honest runs, hence the 2. eps is the type's rounding: without it, a
reference that happens to round nothing would demand exactness. If x has only a few numbers, their noise may be small by
chance, and eps is the typical noise of the task's modules.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from eptx.bundle import Manifest

#: A bundle fails if a ratio is larger. docs/validation.md has the measurements behind it.
LIMIT = 10.0
#: Relative rounding of one number: half a unit in the last place.
EPS = {"fp32": 2.0**-24, "fp16": 2.0**-11}
#: The largest ratio; it stands for NaN too.
WORST = 1e30
#: Fewer numbers than this measure their own noise floor badly.
_FEW = 64


#: What a value is of.
Kind: TypeAlias = Literal["module", "output"]


class Subject(NamedTuple):
    """A module or an output, of a task."""

    task: str
    kind: Kind
    name: str


@dataclass
class Spread:
    """The size of a set of numbers: their count, the sum of their squares, the largest magnitude."""

    count: int = 0
    squares: float = 0.0
    largest: float = 0.0

    def add(self, values: np.ndarray) -> None:
        """Adds numbers; NaN or infinity makes the spread infinite."""
        if not values.size:
            return
        with np.errstate(all="ignore"):
            largest = float(np.abs(values).max())
            self.squares += float(np.square(values, dtype=np.float64).sum())
        self.count += values.size
        self.largest = max(self.largest, largest) if math.isfinite(largest) else math.inf

    @property
    def rms(self) -> float:
        """Root mean square; 0 of no numbers."""
        if not math.isfinite(self.largest) or not math.isfinite(self.squares):
            return math.inf
        return math.sqrt(self.squares / self.count) if self.count else 0.0


class Spreads(defaultdict[Subject, Spread]):
    """A spread per subject, empty until something is added."""

    def __init__(self) -> None:
        super().__init__(Spread)


def largest(noises: Sequence[Spreads]) -> Spreads:
    """The largest root mean square and the largest number of each subject, over several measurements of one noise.

    Args:
        noises: the first is of all values, the others may be of some of them.
    """
    result = Spreads()
    for subject in dict.fromkeys(subject for noise in noises for subject in noise):
        found = [noise[subject] for noise in noises]
        count, rms = found[0].count, max(spread.rms for spread in found)
        result[subject] = Spread(count, count * rms * rms, max(spread.largest for spread in found))
    return result


def own_type(manifest: Manifest) -> str:
    """The rounding of the bundle's results: "fp32" or "fp16"; quantized products are summed in float32."""
    return "fp16" if manifest.precision == "fp16" else "fp32"


def ratio(error: Spread, noise: Spread, scale: Spread, dtype: str, typical: float = 0.0) -> float:
    """An error as a multiple of the noise floor, at most 1e30, which stands for NaN too.

    Args:
        error: bundle less float64.
        noise: own type less float64.
        scale: the float64 values.
        dtype: what the bundle's numbers round like, a key of `EPS`.
        typical: noise over scale that is typical of the task, for a handful of numbers.
    """
    eps = max(EPS[dtype], typical) if scale.count < _FEW else EPS[dtype]
    parts = (
        _divide(error.rms, max(noise.rms, eps * scale.rms)),
        _divide(error.largest, 2.0 * max(noise.largest, eps * scale.largest)),
    )
    return min(max(parts), WORST)


def _divide(error: float, floor: float) -> float:
    if error == 0.0:
        return 0.0
    # an infinite floor would hide every error
    return error / floor if 0.0 < floor < math.inf and math.isfinite(error) else WORST
