"""The 95 % interval of a drop: where it would be, 19 times out of 20, had other rows of the same kind been drawn.

A few rows on which two bundles agree do not show that they always agree: of 8 such rows, the share that differs may be
32 %. A plain bootstrap would say 0, since every sample of these rows agrees too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from eptx.runtime.measure.metrics import Metric

_Z = NormalDist().inv_cdf(0.975)
_RESAMPLES = 1000
_PERCENT = (2.5, 97.5)
_HALVINGS = 60


def paired_shares(worse: int, better: int, rows: int, z: float = _Z) -> tuple[float, float]:
    """Of the difference of two shares of the same rows: Tango's score interval (Statistics in Medicine 17, 1998).

    Args:
        worse: rows that only the first has right.
        better: rows that only the second has right.
        rows: all rows.
        z: standard deviations of the normal distribution that it leaves out on each side.

    Returns:
        low and high end of the first share minus the second, -1 to 1. Where no row differs, plus and minus the high end
        of Wilson's interval for none of the rows.
    """

    def score(difference: float) -> float:
        """How many deviations the rows are from this difference, by the likeliest shares that have it."""
        linear = (2 * rows - worse + better) * difference - worse - better
        product = better * difference * (1 - difference)
        share = (math.sqrt(max(0.0, linear**2 + 8 * rows * product)) - linear) / (4 * rows)
        variance = rows * (2 * share + difference * (1 - difference))
        return (worse - better - rows * difference) / math.sqrt(max(variance, 1e-300))

    middle = (worse - better) / rows
    return _crossing(lambda d: score(d) > z, -1.0, middle), _crossing(lambda d: score(d) >= -z, middle, 1.0)


def resampled(
    metric: Metric, base: np.ndarray, other: np.ndarray, wanted: np.ndarray, *, decided: bool
) -> tuple[float, float]:
    """Of the difference of a metric of the same rows: a paired bootstrap.

    Args:
        metric: the metric.
        base: what the first answers, one for each row: labels [rows], sets of labels [rows, labels] as booleans, values
            [rows] or vectors [rows, width].
        other: what the second answers, as `base`.
        wanted: what is right, as `base`.
        decided: whether they are labels or sets, in which a few rows may agree by chance. Then a sample also holds rows
            on which one of the two has turned: z squared in as many as there are, which for a share is what
            `paired_shares` has where no row differs.

    Returns:
        low and high end of the first metric minus the second.
    """
    rng, rows = np.random.default_rng(0), len(base)
    turned = _Z**2 / (rows + _Z**2) if decided else 0.0
    labels = np.union1d(np.unique([base, other, wanted]), [0, 1]) if decided else np.zeros(0)
    lost = []
    for _ in range(_RESAMPLES):
        picks = rng.integers(0, rows, rows)
        sides = [base[picks], other[picks]]
        if decided:
            side = np.where(rng.random(rows) < turned, rng.integers(0, 2, rows), -1)  # -1: neither
            sides = [_with_turned(own, side == number, labels, rng) for number, own in enumerate(sides)]
        first, second = (metric(own, wanted[picks]) for own in sides)
        lost.append(first - second)
    low, high = (float(value) for value in np.percentile(lost, _PERCENT))
    return low, high


def _with_turned(decisions: np.ndarray, rows: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Decisions that are others on some rows: another label, or a set with one label more or less."""
    made, (at,) = decisions.copy(), np.nonzero(rows)
    if made.ndim == 2:
        column = rng.integers(0, made.shape[1], len(at))
        made[at, column] = ~made[at, column]
    else:
        place = np.searchsorted(labels, made[at])
        made[at] = labels[(place + rng.integers(1, len(labels), len(at))) % len(labels)]
    return made


def _crossing(before: Callable[[float], bool], low: float, high: float) -> float:
    """Where a condition that holds at the low end stops to hold."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if before(middle) else (low, middle)
    return high
