"""What a model with task heads gets right, task by task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eptx.exporter.training.losses import NO_LABEL


class TaskMetrics:
    """Transformers' ``compute_metrics``: ``<task>_accuracy``, of a regression ``<task>_pearson``, and their ``mean``.

    Args:
        tasks: names, by id.
        counts: number of labels of each task.
    """

    def __init__(self, tasks: Sequence[str], counts: Sequence[int]) -> None:
        self.tasks, self.counts = tasks, counts

    def __call__(self, prediction: Any) -> dict[str, float]:
        """Of predictions float ``[rows, most labels]`` and label_ids (labels ``[rows]``, tasks ``[rows]``).

        A task without a labelled row has no metric.
        """
        logits, (labels, tasks) = prediction.predictions, prediction.label_ids
        found: dict[str, float] = {}
        for task, (name, count) in enumerate(zip(self.tasks, self.counts, strict=True)):
            rows = (tasks == task) & (labels != NO_LABEL)
            if not rows.any():
                continue
            own, wanted = logits[rows, :count].astype(np.float64), labels[rows].astype(np.float64)
            if count == 1:
                found[f"{name}_pearson"] = _correlation(own[:, 0], wanted)
            else:
                found[f"{name}_accuracy"] = float((own.argmax(1) == wanted).mean())
        return found | {"mean": float(np.mean(list(found.values())))} if found else {}


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; 0 where one side is constant (as a single row is), so that a mean stays a number."""
    if np.ptp(a) == 0 or np.ptp(b) == 0 or not np.isfinite(a).all():
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
