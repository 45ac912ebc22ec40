"""Intervals of drops: against published ones, SciPy's, and what is true of rows that were drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, norm

from eptx.runtime.measure.interval import paired_shares, resampled
from eptx.runtime.measure.metrics import METRICS


@pytest.mark.parametrize(
    ("worse", "better", "rows", "level", "low", "high"),
    [
        (1, 7, 21, 0.95, -0.517, -0.026),  # Bentur et al. 2009, in Fagerland, Lydersen and Laake's table of intervals
        (28, 25, 618, 0.90, -0.0148, 0.0247),  # R's PropCIs::scoreci.mp(25, 28, 618)
    ],
)
def test_published_intervals(worse: int, better: int, rows: int, level: float, low: float, high: float) -> None:
    digits = 3 if rows == 21 else 4
    found = paired_shares(worse, better, rows, z=float(norm.ppf((1 + level) / 2)))
    assert [round(end, digits) for end in found] == [low, high]


@pytest.mark.parametrize("rows", [1, 8, 40, 128, 3000])
def test_rows_that_all_agree_show_what_wilsons_interval_says_of_none(rows: int) -> None:
    high = binomtest(0, rows).proportion_ci(method="wilson").high
    assert paired_shares(0, 0, rows) == pytest.approx((-high, high), abs=1e-9)
    assert 100 * paired_shares(0, 0, 8)[1] > 30


def _deviations(worse: int, better: int, rows: int, difference: float) -> float:
    """The score test, with the likeliest shares found by SciPy."""
    least, most = max(0.0, -difference), (1 - difference) / 2

    def unlikely(share: float) -> float:
        counts, shares = (worse, better, rows - worse - better), (share + difference, share, 1 - 2 * share - difference)
        return -sum(count * math.log(max(own, 1e-300)) for count, own in zip(counts, shares, strict=True) if count)

    share = minimize_scalar(unlikely, bounds=(least, most), method="bounded", options={"xatol": 1e-12}).x
    return float((worse - better - rows * difference) / math.sqrt(rows * (2 * share + difference - difference**2)))


@pytest.mark.parametrize(("worse", "better", "rows"), [(3, 1, 12), (0, 4, 30), (5, 5, 16), (9, 2, 204), (40, 61, 1000)])
def test_the_ends_are_where_the_score_test_says_so(worse: int, better: int, rows: int) -> None:
    low, high = paired_shares(worse, better, rows)
    assert low < (worse - better) / rows < high
    assert _deviations(worse, better, rows, low) == pytest.approx(1.96, abs=1e-3)
    assert _deviations(worse, better, rows, high) == pytest.approx(-1.96, abs=1e-3)


@pytest.mark.parametrize(("rows", "worse", "better"), [(8, 0.1, 0.0), (40, 0.05, 0.02), (128, 0.02, 0.0)])
def test_they_hold_what_is_true_of_few_rows(rows: int, worse: float, better: float) -> None:
    """In about 19 of 20 draws. A plain bootstrap says 0 to 0 in 43 % of the first, 8 % of the last."""
    rng = np.random.default_rng(1)
    drawn = rng.multinomial(rows, [worse, better, 1 - worse - better], 4000)
    held = [low <= worse - better <= high for low, high in (paired_shares(int(a), int(b), rows) for a, b, _ in drawn)]
    assert np.mean(held) > 0.93


@pytest.mark.parametrize("name", ["matthews", "f1", "f1_micro", "f1_macro"])
def test_other_metrics_of_labels_know_that_few_rows_agree_by_chance(name: str) -> None:
    kind, metric = METRICS[name]
    for rows in (8, 128):
        labels = np.arange(rows) % 2
        right = labels if kind == "labels" else np.stack([labels, 1 - labels], 1).astype(bool)
        low, high = resampled(metric, right, right, right, decided=True)
        assert low < -0.5 / rows and high > 0.5 / rows and high < 8 / rows


def test_a_share_is_resampled_to_what_its_interval_is() -> None:
    """To a row or so: what is added to samples is no more and no less than agreement by chance."""
    rng, metric = np.random.default_rng(0), METRICS["accuracy"][1]
    for rows, rate in ((100, 0.0), (400, 0.0), (400, 0.05), (1000, 0.2)):
        wanted = rng.integers(0, 2, rows)
        base, other = (np.where(rng.random(rows) < rate, 1 - wanted, wanted) for _ in range(2))
        worse, better = (
            int(((base == wanted) & (other != wanted)).sum()),
            int(((base != wanted) & (other == wanted)).sum()),
        )
        expected = paired_shares(worse, better, rows)
        assert resampled(metric, base, other, wanted, decided=True) == pytest.approx(expected, abs=1.6 / rows + 0.003)
