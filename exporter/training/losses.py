"""The loss of task heads on a batch of mixed tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

NO_LABEL = -100
"""Label of a row that counts in no loss and no metric, as in PyTorch and transformers."""


def task_head_loss(
    logits: Tensor,
    tasks: Tensor,
    labels: Tensor,
    counts: Sequence[int],
    *,
    items: Tensor | int | None = None,
    class_weights: Mapping[int, Tensor] | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Sum over rows of the cross-entropy, or of half the squared error for tasks of one label, over ``items``.

    Args:
        logits: float ``[batch, largest label count]``.
        tasks: int64 ``[batch]``, each the place of its task in ``counts``.
        labels: ``[batch]``, class index or regression target; `NO_LABEL` for none.
        counts: number of labels of each task.
        items: by what the sum is divided; None: the rows that have a label.
        class_weights: task -> float ``[labels]``, by which each row's term is multiplied.
        label_smoothing: of the cross-entropies, as in PyTorch.
    """
    total = logits.new_zeros((), dtype=torch.float32)
    for task, count in enumerate(counts):
        rows = ((tasks == task) & (labels != NO_LABEL)).nonzero().squeeze(1)
        own, wanted = logits[rows, :count].float(), labels[rows]
        if count == 1:
            total = total + 0.5 * (own.squeeze(1) - wanted.float()).square().sum()
            continue
        terms = F.cross_entropy(own, wanted.long(), reduction="none", label_smoothing=label_smoothing)
        if class_weights and task in class_weights:
            terms = terms * class_weights[task].to(terms.device)[wanted.long()]
        total = total + terms.sum()
    return total / ((labels != NO_LABEL).sum().clamp_min(1) if items is None else items)
