"""The loss of task heads on a batch of mixed tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def task_head_loss(logits: Tensor, tasks: Tensor, labels: Tensor, counts: Sequence[int]) -> Tensor:
    """Mean over rows: cross-entropy, or half the squared error for tasks of one label.

    Args:
        logits: ``[batch, largest label count]``.
        tasks: int64 ``[batch]``.
        labels: ``[batch]``, class index or regression target.
        counts: number of labels of each task.
    """
    terms = []
    for task, count in enumerate(counts):
        rows = (tasks == task).nonzero().squeeze(1)
        if not len(rows):
            continue
        own = logits[rows, :count].float()
        if count == 1:
            terms.append(0.5 * F.mse_loss(own.squeeze(1), labels[rows], reduction="sum"))
        else:
            terms.append(F.cross_entropy(own, labels[rows].long(), reduction="sum"))
    return torch.stack(terms).sum() / len(tasks)
