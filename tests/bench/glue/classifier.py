"""A model of any method with task heads: what it answers, and how good that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eptx.exporter.training import Example, TaskClassifier, TaskHeadBank, collate, length_batches, pool
from examples.glue_minilm.metrics import headline, task_metrics
from tests.bench.glue.data import TASKS, own

POOLING = "mean"


@dataclass(frozen=True)
class Adapted:
    """A base with an adapter.

    Attributes:
        model: what is trained.
        run: (inputs of the base, task id of each row) -> the base's output.
    """

    model: Any
    run: Callable[[Mapping[str, Tensor], Tensor], Any]


class Classifier(TaskClassifier):
    """A `TaskClassifier` of a method that is told the rows' tasks in a way of its own."""

    def __init__(self, adapted: Adapted, heads: TaskHeadBank) -> None:
        super().__init__(adapted.model, heads, POOLING)
        self.run = adapted.run

    def forward(self, inputs: Mapping[str, Tensor], tasks: Tensor, told: Tensor | None = None) -> Tensor:
        """Logits of each row's task; every method is told it."""
        pooled = pool(self.run(inputs, tasks), inputs.get("attention_mask"), self.pooling)
        logits: Tensor = self.heads(pooled, tasks)
        return logits


def first_heads(hidden: int, tasks: Sequence[str], rows: Mapping[str, Sequence[Example]], seed: int) -> TaskHeadBank:
    """Heads that begin alike in every method, of one task or of all; a regression's at the mean of its rows."""
    torch.manual_seed(seed)
    every = TaskHeadBank(hidden, {task: len(names) for task, names in TASKS.items()})
    for task, head in zip(every.tasks, every.heads, strict=True):
        if head.out_features == 1:
            nn.init.constant_(head.bias, sum(row.label for row in rows[task]) / len(rows[task]))
    return TaskHeadBank.from_tensors(every.tensors(), list(tasks))


def answers(classifier: Classifier, rows: Mapping[str, Sequence[Example]], pad: int) -> dict[str, np.ndarray]:
    """Task -> the logits [rows, labels] of its rows, in float32. Batches have one task, as nobody's answer depends on
    its neighbours'."""
    classifier.eval()
    found = {}
    with torch.no_grad():
        for number, task in enumerate(classifier.heads.tasks):
            logits = np.zeros((len(rows[task]), len(TASKS[task])), np.float32)
            for batch in length_batches([len(row.input_ids) for row in rows[task]], 2048, None):
                part = collate([own(rows[task][i], number) for i in batch], pad)
                logits[batch] = classifier(part.inputs, part.tasks)[:, : logits.shape[1]].numpy()
            found[task] = logits
    return found


def metrics(logits: Mapping[str, np.ndarray], rows: Mapping[str, Sequence[Example]]) -> dict[str, dict[str, float]]:
    """Task -> GLUE's metrics; ``headline`` is the one that counts."""
    found = {}
    for task, own_logits in logits.items():
        values = task_metrics(task, own_logits, np.array([row.label for row in rows[task]]))
        found[task] = values | {"headline": values[headline(task)]}
    return found


def relative_loss(logits: Mapping[str, np.ndarray], rows: Mapping[str, Sequence[Example]]) -> float:
    """Mean over tasks of the loss over that of the best constant answer, so that no task's scale counts more."""
    ratios = []
    for task, own_logits in logits.items():
        labels = torch.tensor([row.label for row in rows[task]])
        if own_logits.shape[1] == 1:
            ratios.append(float(F.mse_loss(torch.from_numpy(own_logits[:, 0]), labels) / labels.var(correction=0)))
            continue
        shares = torch.bincount(labels.long(), minlength=own_logits.shape[1]) / len(labels)
        loss = F.cross_entropy(torch.from_numpy(own_logits), labels.long())
        ratios.append(float(loss / torch.special.entr(shares).sum()))
    return sum(ratios) / len(ratios)
