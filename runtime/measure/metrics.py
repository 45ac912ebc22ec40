"""Metrics of answers against labels, or, where there are none, against another bundle's answers.

What they are computed from is, by the kind of an answer: of "labels" the likeliest label's number, of "sets" the labels
that are more likely than not, of a "value" that value, of "tokens" whether all are right, of a "vector" its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eptx.errors import DataError

Metric = Callable[[np.ndarray, np.ndarray], float]


def _accuracy(found: np.ndarray, wanted: np.ndarray) -> float:
    return float((found == wanted).mean())


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; 0 if one side is constant or not finite."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()) or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _f1(found: np.ndarray, wanted: np.ndarray) -> float:
    """Of label 1."""
    hits = float(((found == 1) & (wanted == 1)).sum())
    return 2 * hits / max(1.0, float((found == 1).sum() + (wanted == 1).sum()))


def _f1_micro(found: np.ndarray, wanted: np.ndarray) -> float:
    """Of all labels of all rows [n, labels] together; 1 if there is no label, as scikit-learn's zero_division=1."""
    named = float(found.sum() + wanted.sum())
    return 2 * float((found & wanted).sum()) / named if named else 1.0


def _f1_macro(found: np.ndarray, wanted: np.ndarray) -> float:
    """The mean of every label's own."""
    return float(np.mean([_f1_micro(*pair) for pair in zip(found.T, wanted.T, strict=True)]))


def _all_right(found: np.ndarray, wanted: np.ndarray) -> float:
    """The share of rows with exactly their labels, as scikit-learn's accuracy of several labels."""
    return float((found == wanted).all(1).mean())


def _spearman(found: np.ndarray, wanted: np.ndarray) -> float:
    return _correlation(_ranks(found), _ranks(wanted))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, with the mean rank for equal values; NaN for values that are not finite."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return np.where(np.isfinite(values), ranks, np.nan)


def _matthews(found: np.ndarray, wanted: np.ndarray) -> float:
    """Matthews' correlation of any number of labels (Gorodkin's R_K)."""
    labels, place = np.unique(np.concatenate([found, wanted]), return_inverse=True)
    a, b = np.split(np.eye(len(labels))[place], 2)
    a, b = a - a.mean(0), b - b.mean(0)
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else 0.0


def _cosine(found: np.ndarray, wanted: np.ndarray) -> float:
    """Mean cosine of rows [n, width]; 0 for a row that is not finite."""
    found = np.where(np.isfinite(found).all(1, keepdims=True), found, 0)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((found * wanted).sum(1) / np.maximum(norms, 1e-30)).mean())


#: name -> the kind of answer it is for, and what it computes. 1 is best.
METRICS: Mapping[str, tuple[str, Metric]] = {
    "accuracy": ("labels", _accuracy),
    "matthews": ("labels", _matthews),
    "f1": ("labels", _f1),
    "f1_micro": ("sets", _f1_micro),
    "f1_macro": ("sets", _f1_macro),
    "subset_accuracy": ("sets", _all_right),
    "pearson": ("value", _correlation),
    "spearman": ("value", _spearman),
    "exact_match": ("tokens", _accuracy),
    "cosine": ("vector", _cosine),
}
#: Those that are the share of the rows that are right.
SHARES = frozenset({"accuracy", "subset_accuracy", "exact_match"})
#: What a kind of answer is measured by, with labels or against another bundle's answers.
DEFAULT = {"labels": "accuracy", "sets": "f1_micro", "value": "pearson", "tokens": "exact_match", "vector": "cosine"}


def choose_metrics(kinds: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """The metric of every task.

    Args:
        kinds: task -> the kind of its answers.
        wanted: task -> metric, where the user says so.

    Raises:
        DataError: a task or metric is unknown, or does not fit the task's answers.
    """
    for task, name in wanted.items():
        if task not in kinds:
            raise DataError(f"--metric names an unknown task {task!r}; there are {', '.join(kinds)}")
        if name not in METRICS:
            raise DataError(f"--metric {task}: unknown metric {name!r}; there are {', '.join(METRICS)}")
        if METRICS[name][0] != kinds[task]:
            fitting = [metric for metric, (kind, _) in METRICS.items() if kind == kinds[task]]
            raise DataError(f"--metric {task}: {name} does not fit its answers; use {' or '.join(fitting)}")
    return {task: wanted.get(task, DEFAULT[kind]) for task, kind in kinds.items()}


def decisions(kind: str, answers: Sequence[np.ndarray]) -> np.ndarray:
    """What a metric compares, one for every row; label -1 if a model's numbers overflow."""
    if kind == "labels":
        return np.array([int(answer.argmax()) if np.isfinite(answer).all() else -1 for answer in answers])
    if kind == "sets":
        return np.stack([answer > 0 for answer in answers])  # a sigmoid above 1/2; where numbers overflow, none
    if kind == "value":
        return np.array([float(answer[0]) for answer in answers])
    return np.stack(answers) if kind == "vector" else as_objects([tuple(answer.tolist()) for answer in answers])


def as_objects(values: Sequence[object]) -> np.ndarray:
    """An array of objects; NumPy would turn tuples of one length into another dimension."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
