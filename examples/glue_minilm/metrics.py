"""GLUE's metrics."""

from __future__ import annotations

import numpy as np

#: The one number by which a task is compared.
HEADLINE = {"cola": "matthews", "mrpc": "f1", "stsb": "spearman"}


def headline(task: str) -> str:
    """Name of the metric by which a task is compared: accuracy unless GLUE says otherwise."""
    return HEADLINE.get(task, "accuracy")


def task_metrics(task: str, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Metrics of one task from its own logits ``[rows, labels]`` and labels ``[rows]``."""
    if logits.shape[1] == 1:
        scores = logits[:, 0].astype(np.float64)
        values = {
            "pearson": _correlation(scores, labels),
            "spearman": _correlation(_ranks(scores), _ranks(labels)),
        }
    else:
        predicted = logits.argmax(1)
        values = {"accuracy": float((predicted == labels).mean())}
        if task == "cola":
            values["matthews"] = _correlation(predicted, labels)
        if task == "mrpc":
            values["f1"] = _f1(predicted, labels)
    return {name: round(value, 4) for name, value in values.items()}


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation, which for two-valued a and b is Matthews'; 0 where one of them is constant."""
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, with the mean rank for equal values."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: np.ndarray = (last - (counts - 1) / 2)[inverse]
    return ranks


def _f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    hits = float(((predicted == 1) & (labels == 1)).sum())
    return 2 * hits / max(1.0, float((predicted == 1).sum() + (labels == 1).sum()))
