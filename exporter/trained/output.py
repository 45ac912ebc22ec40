"""The results of one forward of the trained model, and the task heads at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eptx.exporter.training.heads import TaskHeadBank, pool

#: The logit of a token that a task lacks, and another one of the same base has: no sampling takes it.
LACKING = -65504.0


@dataclass(frozen=True)
class Output:
    """The results of one forward.

    Attributes:
        outputs: what the trained class returns, by its names; with task heads also ``logits`` [batch, most labels].
        inner: what the bare model inside the class returns, if the class has one.
        modules: output of every adapted linear layer, bias included, by the adapter's module names, of its first call.
        task: task of each row int64 [batch] (for id -1 the one inferred).
        task_margin: with id -1: sum of similarities of the best task less the next one's [batch].
        group: the group that the first module was given, int64 [1 or batch]. weights: [1 or batch, t].
        calls: of each call of the router in turn, what it gives every group's experts [1 or batch, k, t]; None
            where the route was given.
        groups: module -> the group of its first call [1 or batch].
        margins: by how much each route of this forward was chosen, each [1 or batch].
    """

    outputs: dict[str, np.ndarray]
    inner: dict[str, np.ndarray]
    modules: dict[str, np.ndarray]
    task: np.ndarray
    task_margin: np.ndarray | None = None
    group: np.ndarray | None = None
    weights: np.ndarray | None = None
    calls: list[np.ndarray | None] = field(default_factory=list)
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    margins: list[np.ndarray] = field(default_factory=list)


class Heads(nn.Module):
    """Task heads as eptx's training saves them, with their pooling."""

    def __init__(self, bank: TaskHeadBank, pooling: str) -> None:
        super().__init__()
        self.bank, self.pooling = bank, pooling

    def forward(self, output: Any, mask: Tensor | None, names: Sequence[str]) -> Tensor:
        """Logits [batch, most labels] of rows by their tasks' names; a task without a head has zeros."""
        known = {task: index for index, task in enumerate(self.bank.tasks)}
        rows = torch.tensor([known.get(name, len(known)) for name in names])
        result: Tensor = self.bank(pool(output, mask, self.pooling), rows)
        return result

    def labels(self, task: str) -> int:
        """How many logits a task has; 0 for one without a head."""
        return dict(zip(self.bank.tasks, self.bank.labels, strict=True)).get(task, 0)
