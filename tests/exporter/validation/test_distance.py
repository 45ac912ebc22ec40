"""The unit in which errors are measured."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eptx.runtime.validation.distance import EPS, Spread, Spreads, Subject, largest, ratio


def spread(*values: float) -> Spread:
    result = Spread()
    result.add(np.array(values))
    return result


def many(values: np.ndarray) -> Spread:
    result = Spread()
    result.add(values)
    return result


def test_a_spread_pools_what_is_added() -> None:
    pooled = spread(3.0)
    pooled.add(np.array([-4.0, 0.0]))
    pooled.add(np.zeros((0, 5)))
    assert (pooled.count, pooled.largest) == (3, 4.0)
    assert pooled.rms == pytest.approx(math.sqrt(25 / 3))
    assert Spread().rms == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_the_worst(bad: float) -> None:
    assert ratio(spread(0.0, bad), spread(1.0), spread(1.0), "fp32") == 1e30


def test_exactness_is_not_asked_for() -> None:
    """A reference that rounds nothing leaves the type's own rounding as the floor."""
    ones = many(np.ones(100))
    assert ratio(many(np.full(100, EPS["fp32"])), many(np.zeros(100)), ones, "fp32") == pytest.approx(1.0)
    assert ratio(many(np.zeros(100)), many(np.zeros(100)), many(np.zeros(100)), "fp32") == 0.0
    assert ratio(many(np.full(100, 1e-9)), many(np.zeros(100)), many(np.zeros(100)), "fp32") == 1e30


def test_a_handful_of_numbers_borrows_the_noise_of_the_task() -> None:
    lucky = spread(1e-12)
    assert ratio(spread(1e-6), lucky, spread(1.0), "fp32") > 10
    assert ratio(spread(1e-6), lucky, spread(1.0), "fp32", typical=1e-6) == pytest.approx(1.0)
    several = many(np.full(100, 1e-9))
    assert ratio(many(np.full(100, 1e-6)), several, many(np.ones(100)), "fp32", typical=1e-6) > 10


def test_an_error_in_one_place_is_seen() -> None:
    noise = np.full(10_000, 1e-7)
    error = noise.copy()
    error[17] = 1e-5
    assert ratio(many(error), many(noise), many(np.ones(10_000)), "fp32") == pytest.approx(50)


@given(st.integers(0, 2**32), st.floats(0.01, 100))
def test_the_unit_does_not_depend_on_the_size_of_the_values(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    error, noise, scale = rng.normal(size=(3, 200)) * np.array([[3e-7], [1e-7], [1.0]])
    first = ratio(many(error), many(noise), many(scale), "fp32")
    second = ratio(many(error * size), many(noise * size), many(scale * size), "fp32")
    assert first == pytest.approx(second, rel=1e-9)
    assert 1.5 < first < 6


def test_the_largest_of_several_noises_is_the_floor() -> None:
    """One run may be lucky in its root mean square and another in its largest number."""
    flat, peaked, subject = Spreads(), Spreads(), Subject("a", "module", "m")
    flat[subject].add(np.full(100, 2.0))
    peaked[subject].add(np.array([5.0] + [0.0] * 99))
    for order in ([flat, peaked], [peaked, flat]):
        found = largest(order)[subject]
        assert (found.count, found.rms, found.largest) == (100, 2.0, 5.0)
    peaked[subject].add(np.array([math.nan]))
    assert largest([flat, peaked])[subject].rms == math.inf
