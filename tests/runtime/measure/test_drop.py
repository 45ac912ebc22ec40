"""Drops and their intervals, and divergences, of answers that are made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from eptx.runtime.measure import Answers, divergence, drops
from eptx.runtime.measure.metrics import as_objects

Arrays = Sequence[np.ndarray]


def answers(kind: str, given: Arrays, labels: Any = None, confidence: Arrays | None = None) -> Answers:
    sure = [np.zeros(0)] * len(given) if confidence is None else list(confidence)
    return Answers({"t": kind}, {"t": list(given)}, {"t": labels}, {"t": sure})


def coins(rows: int, right: float, labels: np.ndarray, rng: np.random.Generator) -> Answers:
    """Logits of two labels of which a share is right."""
    chosen = np.where(rng.random(rows) < right, labels, 1 - labels)
    return answers("labels", [*np.eye(2)[chosen]], labels)


def test_points() -> None:
    labels = np.array([0, 1, 1, 0])
    reference = answers("labels", [*np.eye(2)[[0, 1, 1, 1]]], labels)
    found = answers("labels", [*np.eye(2)[[0, 0, 0, 0]]], labels)
    (drop,) = drops(reference, found, {"t": "accuracy"}, intervals=False)
    assert (drop.reference, drop.found, drop.points, drop.rows, drop.labelled) == (0.75, 0.5, 25, 4, True)
    assert drop.low == drop.high == 25
    assert drop.to_json() == {**vars(drop)}
    (gain,) = drops(found, reference, {"t": "accuracy"})
    assert gain.points == -25 and gain.low < -25 < gain.high


def test_without_labels_the_reference_is_right() -> None:
    reference = answers("labels", [*np.eye(3)[[0, 1, 2, 2]]])
    found = answers("labels", [*np.eye(3)[[0, 1, 2, 1]]])
    (drop,) = drops(reference, found, {"t": "accuracy"})
    assert (drop.reference, drop.found, drop.labelled) == (1, 0.75, False)


def test_tokens() -> None:
    right, wrong = [np.array([1, 2]), np.array([3])], [np.array([1, 2]), np.array([4])]
    for labels in (None, as_objects([(1, 2), (3,)])):
        (drop,) = drops(answers("tokens", right, labels), answers("tokens", wrong, labels), {"t": "exact_match"})
        assert (drop.reference, drop.found, drop.labelled) == (1, 0.5, labels is not None)


def test_intervals() -> None:
    """They hold the drop that is true for about 95 of 100 draws of rows, and narrow as a root of their number."""
    widths: dict[int, float] = {}
    for rows in (50, 800):
        hits, width = 0, 0.0
        for seed in range(40):
            rng = np.random.default_rng(seed)
            labels = rng.integers(0, 2, rows)
            reference, found = coins(rows, 0.9, labels, rng), coins(rows, 0.8, labels, rng)
            (drop,) = drops(reference, found, {"t": "accuracy"})
            assert drop.low <= drop.points <= drop.high
            hits += drop.low <= 10 <= drop.high
            width += (drop.high - drop.low) / 40
        assert hits >= 34
        widths[rows] = width
    assert widths[50] / widths[800] == pytest.approx(4, rel=0.15)
    expected = 100 * 2 * 1.96 * ((0.9 * 0.1 + 0.8 * 0.2) / 800) ** 0.5
    assert widths[800] == pytest.approx(expected, rel=0.1)


def test_intervals_are_of_pairs() -> None:
    """Rows that are hard for both say nothing about the difference."""
    labels = np.random.default_rng(0).integers(0, 2, 400)
    both = coins(400, 0.6, labels, np.random.default_rng(1))
    (drop,) = drops(both, both, {"t": "accuracy"})
    assert drop.points == 0 and (drop.low, drop.high) == pytest.approx((-0.95, 0.95), abs=0.01)  # Wilson's, of none


def test_few_rows_that_agree_do_not_show_that_all_do() -> None:
    same = answers("labels", [*np.eye(2)[[0, 1] * 4]], np.array([0, 1] * 4))
    for metric, least in (("accuracy", 32), ("matthews", 32), ("f1", 20)):
        (drop,) = drops(same, same, {"t": metric})
        assert drop.points == 0 and drop.low < -least and drop.high > least
    sets = answers("sets", [*np.eye(3)[[0, 1, 2, 0]] - 0.5], np.eye(3, dtype=bool)[[0, 1, 2, 0]])
    (drop,) = drops(sets, sets, {"t": "subset_accuracy"})
    assert drop.high == pytest.approx(48.99, abs=0.01)


def _labels(rng: np.random.Generator) -> Answers:
    return answers("labels", [*rng.normal(0, 5, (30, 3))])


def _vectors(rng: np.random.Generator) -> Answers:
    return answers("vector", [*rng.normal(size=(30, 8))])


def _tokens(rng: np.random.Generator) -> Answers:
    return answers("tokens", [*rng.integers(0, 2, (30, 1))])


def _sure(rng: np.random.Generator) -> Answers:
    return answers("tokens", [*rng.integers(0, 9, (30, 2))], None, [*rng.random((30, 2))])


def _values(rng: np.random.Generator) -> Answers:
    return answers("value", [*rng.normal(size=(30, 1))])


@pytest.mark.parametrize("make", [_labels, _vectors, _tokens, _sure, _values])
def test_divergence(make: Callable[[np.random.Generator], Answers]) -> None:
    a, b = (make(np.random.default_rng(seed)) for seed in (0, 1))
    assert divergence(a, a, "t") == pytest.approx(0, abs=1e-12)
    assert 0 < divergence(a, b, "t") <= 100
    if make is not _values:  # in deviations of the reference's
        assert divergence(a, b, "t") == pytest.approx(divergence(b, a, "t"))


@pytest.mark.parametrize(
    ("kind", "a", "b", "value"),
    [
        ("labels", [[0.0, 0]], [[100.0, 0]], 50),
        ("labels", [[100.0, 0]], [[0.0, 100]], 100),
        ("labels", [[0.0, 1, 2]], [[7.0, 8, 9]], 0),
        ("value", [[1.0], [3]], [[1.5], [3.5]], 50),
        ("value", [[1.0], [1]], [[1.5], [1]], 100),
        ("value", [[1.0], [1]], [[1.0], [1]], 0),
        ("vector", [[1.0, 2]], [[-2.0, -4]], 100),
        ("tokens", [[1, 2], [3, 4]], [[1, 2], [3, 5]], 50),
        ("labels", [[0.0, 0]], [[np.nan, 0]], 100),
        ("labels", [[0.0, 0]], [[np.inf, 0]], 100),
        ("value", [[1.0], [3]], [[np.nan], [3]], 100),
    ],
)
def test_known_divergences(kind: str, a: Any, b: Any, value: float) -> None:
    found = divergence(answers(kind, [*map(np.array, a)]), answers(kind, [*map(np.array, b)]), "t")
    assert found == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(("kind", "metric"), [("labels", "matthews"), ("value", "pearson"), ("vector", "cosine")])
def test_a_model_whose_numbers_overflow_has_lost_all(kind: str, metric: str) -> None:
    rng = np.random.default_rng(0)
    labels = None if kind == "vector" else rng.integers(0, 2, 20)
    reference = answers(kind, [*(rng.normal(size=(20, 2)) if labels is None else np.eye(2)[labels][:, ::-1])], labels)
    ruined = answers(kind, [np.full(2, np.nan)] * 20, labels)
    (drop,) = drops(reference, ruined, {"t": metric})
    assert drop.found == 0 and all(np.isfinite([drop.points, drop.low, drop.high]))
