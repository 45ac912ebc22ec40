"""A model of any method with task heads: what it answers, and how good that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eptx.exporter.training.heads import pool
from eptx.peft import TaskHeadBank
from examples.glue_minilm.metrics import headline, task_metrics
from tests.bench.glue.data import TASKS, Row, batches, own

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


class Classifier(nn.Module):
    """A model of any method with task heads, as `TaskTrainer` trains it; every method is told the rows' tasks."""

    def __init__(self, adapted: Adapted, heads: TaskHeadBank) -> None:
        super().__init__()
        self.model, self.run, self.task_heads = adapted.model, adapted.run, heads

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, task: Tensor
    ) -> dict[str, Tensor]:
        """Logits of each row's task."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        return {"logits": self.task_heads(pool(self.run(inputs, task), attention_mask, POOLING), task)}


def first_heads(hidden: int, tasks: Sequence[str], rows: Mapping[str, Sequence[Row]], seed: int) -> TaskHeadBank:
    """Heads that begin alike in every method, of one task or of all; a regression's at the mean of its rows."""
    torch.manual_seed(seed)
    every = TaskHeadBank(hidden, {task: len(names) for task, names in TASKS.items()})
    for task, head in zip(every.tasks, every.heads, strict=True):
        if head.out_features == 1:
            nn.init.constant_(head.bias, sum(row["labels"] for row in rows[task]) / len(rows[task]))
    return TaskHeadBank.from_tensors(every.tensors(), list(tasks))


def answers(classifier: Classifier, rows: Mapping[str, Sequence[Row]], tokenizer: Any) -> dict[str, np.ndarray]:
    """Task -> the logits [rows, labels] of its rows, in float32. Batches have one task, as nobody's answer depends on
    its neighbours'."""
    classifier.eval()
    found = {}
    with torch.no_grad():
        for number, task in enumerate(classifier.task_heads.tasks):
            logits = []
            for batch in batches([own(row, number) for row in rows[task]], tokenizer):
                del batch["labels"]
                logits.append(classifier(**batch)["logits"][:, : len(TASKS[task])].numpy())
            found[task] = np.concatenate(logits)
    return found


def metrics(logits: Mapping[str, np.ndarray], rows: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, float]]:
    """Task -> GLUE's metrics; ``headline`` is the one that counts."""
    found = {}
    for task, own_logits in logits.items():
        values = task_metrics(task, own_logits, np.array([row["labels"] for row in rows[task]]))
        found[task] = values | {"headline": values[headline(task)]}
    return found


def relative_loss(logits: Mapping[str, np.ndarray], rows: Mapping[str, Sequence[Row]]) -> float:
    """Mean over tasks of the loss over that of the best constant answer, so that no task's scale counts more."""
    ratios = []
    for task, own_logits in logits.items():
        labels = torch.tensor([row["labels"] for row in rows[task]])
        if own_logits.shape[1] == 1:
            ratios.append(float(F.mse_loss(torch.from_numpy(own_logits[:, 0]), labels) / labels.var(correction=0)))
            continue
        shares = torch.bincount(labels.long(), minlength=own_logits.shape[1]) / len(labels)
        loss = F.cross_entropy(torch.from_numpy(own_logits), labels.long())
        ratios.append(float(loss / torch.special.entr(shares).sum()))
    return sum(ratios) / len(ratios)
