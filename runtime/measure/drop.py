"""How much worse one bundle's answers are than another's on the same rows, per task, with an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eptx.runtime.measure.answers import Answers
from eptx.runtime.measure.interval import paired_shares, resampled
from eptx.runtime.measure.metrics import METRICS, SHARES, decisions


@dataclass(frozen=True)
class Drop:
    """One task.

    Attributes:
        task: its name.
        metric: what was measured.
        labelled: whether it is measured against labels; else against the reference's answers, whose metric is then 1.
        rows: how many rows.
        reference: the metric of the reference. found: of the bundle.
        points: 100 (reference - found).
        low: of a 95 % interval of the points; see `eptx.runtime.measure.interval`. high: its other end.
    """

    task: str
    metric: str
    labelled: bool
    rows: int
    reference: float
    found: float
    points: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def drops(reference: Answers, found: Answers, metrics: Mapping[str, str], *, intervals: bool = True) -> list[Drop]:
    """Compares two bundles' answers to the same rows.

    Args:
        reference: what the points are lost from.
        found: of the bundle that is judged.
        metrics: task -> its metric, see `choose_metrics`.
        intervals: whether to compute intervals; otherwise they are the points themselves.
    """
    return [_drop(task, metric, reference, found, intervals) for task, metric in metrics.items()]


def divergence(reference: Answers, found: Answers, task: str) -> float:
    """By how much a task's answers have changed, 0 to 100: finer than any metric, and needs no labels.

    For one label the total variation of the probabilities; for several labels the mean change of each probability; for
    tokens the mean change of their probabilities; for a value its change in standard deviations of the reference; for a
    vector the lost cosine.
    """
    with np.errstate(invalid="ignore"):
        moved = 100 * _moved(reference, found, task)
    return min(100.0, moved) if np.isfinite(moved) else 100.0  # a model's numbers may overflow


def _moved(reference: Answers, found: Answers, task: str) -> float:
    kind, pairs = found.kinds[task], list(zip(reference.of(task), found.of(task), strict=True))
    if kind == "labels":
        return float(np.mean([np.abs(_softmax(a) - _softmax(b)).sum() for a, b in pairs])) / 2
    if kind == "sets":
        return float(np.mean([np.abs(np.tanh(a / 2) - np.tanh(b / 2)).mean() for a, b in pairs])) / 2
    if kind == "value":
        base, other = (np.array([float(answer[0]) for answer in side]) for side in zip(*pairs, strict=True))
        return float(np.abs(base - other).mean() / max(base.std(), 1e-12))
    if kind == "vector":
        base, other = (np.stack(side) for side in zip(*pairs, strict=True))
        return (1 - METRICS["cosine"][1](base, other)) / 2
    sure = list(zip(reference.confidence(task), found.confidence(task), strict=True))
    if all(len(a) for a, _ in sure):
        return float(np.mean([np.abs(a - b).mean() for a, b in sure]))
    return float(np.mean([a.tolist() != b.tolist() for a, b in pairs]))


def _softmax(logits: np.ndarray) -> np.ndarray:
    likely = np.exp(logits - logits.max())
    return np.asarray(likely / likely.sum())


def _drop(task: str, name: str, reference: Answers, found: Answers, intervals: bool) -> Drop:
    kind, metric = METRICS[name]
    base, other = decisions(kind, reference.of(task)), decisions(kind, found.of(task))
    labels = reference.labels(task)
    if kind == "tokens":
        base, other, labels = _right(base, other, labels)
    wanted = base if labels is None else labels
    values = metric(base, wanted), metric(other, wanted)
    points = 100 * (values[0] - values[1])
    low, high = (points, points) if not intervals else _interval(name, base, other, wanted)
    return Drop(task, name, labels is not None, len(base), values[0], values[1], points, low, high)


def _interval(name: str, base: np.ndarray, other: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Low and high end of the points."""
    kind, metric = METRICS[name]
    if name in SHARES:
        first, second = ((own == wanted).reshape(len(own), -1).all(1) for own in (base, other))
        ends = paired_shares(int((first & ~second).sum()), int((second & ~first).sum()), len(first))
    else:
        ends = resampled(metric, base, other, wanted, decided=kind in ("labels", "sets"))
    return 100 * ends[0], 100 * ends[1]


def _right(base: np.ndarray, other: np.ndarray, labels: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Whether each token sequence is right; without labels, the reference is right."""
    wanted: Any = base if labels is None else labels
    ones = np.ones(len(base))
    right = [np.array([float(a == w) for a, w in zip(side, wanted, strict=True)]) for side in (base, other)]
    return right[0], right[1], None if labels is None else ones
