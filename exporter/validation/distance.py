"""How far two results are apart, pooled over batches, and how many times the noise floor that is.

For one task and one module or graph output, with x the float64 reference, r the reference in the export's own type
and y the bundle's result, over all judged rows and positions:

    ratio = max( rms(y - x) / max(rms(r - x), eps rms(x)),  max|y - x| / 2 max(max|r - x|, eps max|x|) )

The root mean square is steady from draw to draw and sees a small error that is everywhere; the largest error sees one
that is in a single place, and varies twice as much between honest runs, hence the 2. eps, the type's rounding, keeps
a reference that happens to round nothing from asking for exactness; where x is a handful of numbers, whose noise may be
small by chance, eps is the noise that is typical of the task's modules.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

#: A bundle fails where its ratio is larger. docs/validation.md says what was measured to choose it.
LIMIT = 10.0
#: Relative rounding of one number: half a unit in the last place.
EPS = {"fp32": 2.0**-24, "fp16": 2.0**-11}
#: The largest ratio, which stands for not a number as well.
WORST = 1e30
#: Fewer numbers than this do not measure their own noise floor well.
_FEW = 64


class Subject(NamedTuple):
    """What is compared, for which task."""

    task: str
    kind: Literal["module", "output"]
    name: str


@dataclass
class Spread:
    """Size of a set of numbers: how many, their squares' sum, the largest."""

    count: int = 0
    squares: float = 0.0
    largest: float = 0.0

    def add(self, values: np.ndarray) -> None:
        """Takes in more numbers; a NaN or infinity makes the spread infinite."""
        if not values.size:
            return
        with np.errstate(all="ignore"):
            largest = float(np.abs(values).max())
            self.squares += float(np.square(values, dtype=np.float64).sum())
        self.count += values.size
        self.largest = max(self.largest, largest) if math.isfinite(largest) else math.inf

    @property
    def rms(self) -> float:
        """Root mean square; 0 of nothing."""
        if not math.isfinite(self.largest) or not math.isfinite(self.squares):
            return math.inf
        return math.sqrt(self.squares / self.count) if self.count else 0.0


class Spreads(defaultdict[Subject, Spread]):
    """A spread per subject, empty until something is added."""

    def __init__(self) -> None:
        super().__init__(Spread)


def largest(noises: Sequence[Spreads]) -> Spreads:
    """Of several measurements of one noise, for each subject the largest root mean square and the largest number.

    Args:
        noises: the first is of all values, the others may be of some of them.
    """
    result = Spreads()
    for subject in dict.fromkeys(subject for noise in noises for subject in noise):
        found = [noise[subject] for noise in noises]
        count, rms = found[0].count, max(spread.rms for spread in found)
        result[subject] = Spread(count, count * rms * rms, max(spread.largest for spread in found))
    return result


def ratio(error: Spread, noise: Spread, scale: Spread, dtype: str, typical: float = 0.0) -> float:
    """How many times the noise floor an error is; at most 1e30, which stands for not a number as well.

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
    # beside an infinite floor every error would be nothing
    return error / floor if 0.0 < floor < math.inf and math.isfinite(error) else WORST
