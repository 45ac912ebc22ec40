"""Metrics against SciPy's and scikit-learn's, and cases whose values are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from eptx.errors import DataError
from eptx.runtime.measure import METRICS, choose_metrics
from eptx.runtime.measure.metrics import as_objects, decisions


def metric(name: str, found: object, wanted: object) -> float:
    return METRICS[name][1](np.asarray(found), np.asarray(wanted))


#: metric of labels -> what it is elsewhere
LABELS = {
    "accuracy": lambda found, wanted: sk.accuracy_score(wanted, found),
    "matthews": lambda found, wanted: sk.matthews_corrcoef(wanted, found),
    "f1": lambda found, wanted: sk.f1_score(wanted == 1, found == 1, zero_division=0),
}
#: metric of several labels -> what it is elsewhere
SETS = {
    "f1_micro": lambda found, wanted: sk.f1_score(wanted, found, average="micro", zero_division=1),
    "f1_macro": lambda found, wanted: sk.f1_score(wanted, found, average="macro", zero_division=1),
    "subset_accuracy": lambda found, wanted: sk.accuracy_score(wanted, found),
}
VALUES = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("labels", [2, 3, 7])
def test_labels(name: str, labels: int) -> None:
    rng = np.random.default_rng(labels)
    for rows in (1, 2, 5, 300):
        wanted = rng.integers(0, labels, rows)
        found = np.where(rng.random(rows) < 0.6, wanted, rng.integers(0, labels, rows))
        if len({*found, *wanted}) > 1 or name != "matthews":  # scikit-learn warns
            assert metric(name, found, wanted.astype(float)) == pytest.approx(LABELS[name](found, wanted), abs=1e-12)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_several_labels(name: str, share: float) -> None:
    rng = np.random.default_rng(5)
    for rows in (1, 2, 300):
        wanted = rng.random((rows, 5)) < share
        found = np.where(rng.random((rows, 5)) < 0.8, wanted, rng.random((rows, 5)) < share)
        assert metric(name, found, wanted) == pytest.approx(SETS[name](found, wanted), abs=1e-12)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("steps", [1e-9, 0.5, 2.0])
def test_values(name: str, steps: float) -> None:
    """Rounded to steps, so that there are ties; with what float32 gives and an offset that is large."""
    rng = np.random.default_rng(3)
    wanted = np.round(rng.normal(size=200) / steps) * steps
    found = np.round((wanted + rng.normal(size=200)) / steps) * steps + 1000
    assert metric(name, found, wanted) == pytest.approx(VALUES[name](found, wanted).statistic, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "found", "wanted", "value"),
    [
        ("spearman", [1, 2, 2, 3], [1, 2, 3, 4], 3 / 10**0.5),
        ("spearman", [1, 10, 100], [-3, -2, -1], 1),
        ("pearson", [0.1, 0.1, 0.1], [1, 2, 3], 0),
        ("pearson", [1, 2, 3], [0.7, 0.7, 0.7], 0),
        ("pearson", [1.0], [1.0], 0),
        ("pearson", [1, np.nan, 3], [1, 2, 3], 0),
        ("spearman", [1, np.inf, 3], [1, 2, 3], 0),
        ("matthews", [1, 1, 1], [0, 1, 1], 0),
        ("matthews", [1, 1, 1], [1, 1, 1], 0),
        ("matthews", [0, 1, -1, -1], [0, 1, 0, 1], 5**-0.5),
        ("f1", [0, 0], [0, 0], 0),
        ("f1", [1, 2, 1, 0], [1, 1, 2, 0], 0.5),
        ("accuracy", [0, -1], [0, 0], 0.5),
        ("cosine", [[3.0, 4], [1, 0]], [[6.0, 8], [0, 1]], 0.5),
        ("cosine", [[np.nan, 4], [1, 0]], [[6.0, 8], [1, 0]], 0.5),
        ("cosine", [[0.0, 0]], [[1.0, 0]], 0),
    ],
)
def test_known_values(name: str, found: object, wanted: object, value: float) -> None:
    assert metric(name, found, wanted) == pytest.approx(value, abs=1e-12)


@given(st.permutations(range(40)), st.integers(0, 2**32 - 1))
def test_the_order_of_rows_changes_nothing(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sides = {
        "labels": rng.integers(-1, 3, (2, 40)),
        "sets": rng.random((2, 40, 3)) < 0.4,
        "value": rng.integers(-5, 5, (2, 40)) / 4,
        "tokens": rng.integers(0, 2, (2, 40)),
        "vector": rng.normal(size=(2, 40, 3)),
    }
    for name, (kind, _) in METRICS.items():
        found, wanted = sides[kind]
        value = metric(name, found, wanted)
        assert value == pytest.approx(metric(name, found[order], wanted[order]), abs=1e-12)
        assert -1 - 1e-12 <= value <= 1 + 1e-12


@pytest.mark.parametrize("name", METRICS)
def test_the_right_answers_are_worth_1(name: str) -> None:
    rng = np.random.default_rng(1)
    right = rng.normal(size=(50, 3)) if name == "cosine" else rng.integers(0, 2, 50)
    right = rng.random((50, 3)) < 0.4 if METRICS[name][0] == "sets" else right
    assert metric(name, right, right) == pytest.approx(1)


def test_what_is_compared() -> None:
    assert decisions("labels", [np.array([1.0, 3, 2]), np.array([5.0])]).tolist() == [1, 0]
    assert decisions("labels", [np.array([1.0, np.nan]), np.array([np.inf, 0])]).tolist() == [-1, -1]
    assert decisions("value", [np.array([2.5]), np.array([np.nan])]).tolist()[0] == 2.5
    tokens = decisions("tokens", [np.array([1, 2]), np.array([3, 4])])
    assert tokens.shape == (2,) and (tokens == as_objects([(1, 2), (3, 5)])).tolist() == [True, False]


def test_choice() -> None:
    kinds = {"cola": "labels", "stsb": "value", "text": "tokens", "all": "vector"}
    chosen = {"cola": "accuracy", "stsb": "pearson", "text": "exact_match", "all": "cosine"}
    assert choose_metrics(kinds, {}) == chosen
    assert choose_metrics(kinds, {"cola": "matthews"}) == {**chosen, "cola": "matthews"}


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"rte": "f1"}, "--metric names an unknown task 'rte'; there are cola, stsb"),
        ({"cola": "bleu"}, "--metric cola: unknown metric 'bleu'; there are accuracy, matthews"),
        ({"stsb": "f1"}, "--metric stsb: f1 does not fit its answers; use pearson or spearman"),
    ],
)
def test_refused_choice(wanted: dict[str, str], said: str) -> None:
    with pytest.raises(DataError) as e:
        choose_metrics({"cola": "labels", "stsb": "value"}, wanted)
    assert str(e.value).startswith(said)
