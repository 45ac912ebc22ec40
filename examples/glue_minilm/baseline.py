"""What the frozen base reaches with trained heads alone: the number that an adapter must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from metrics import headline, task_metrics
from torch import Tensor, nn

from eptx.exporter.training import Example, TaskHeadBank, collate, length_batches, pool, task_head_loss

RATES = (1e-3, 1e-2, 3e-2)
DECAYS = (1e-4, 1e-2)
EPOCHS = 60


def features(base: nn.Module, examples: Sequence[Example], pooling: str, pad: int) -> Tensor:
    """The frozen base's pooled vector of every example, ``[rows, hidden]``."""
    base.eval()
    rows: list[Any] = [None] * len(examples)
    with torch.no_grad():
        for batch in length_batches([len(e.input_ids) for e in examples], 8192, None):
            inputs = collate([examples[i] for i in batch], pad).inputs
            for i, vector in zip(batch, pool(base(**inputs), inputs["attention_mask"], pooling), strict=True):
                rows[i] = vector
    return torch.stack(rows)


def train_heads(
    task: str, labels: int, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor], seed: int
) -> dict[str, float]:
    """The best validation metrics over a grid of settings, each trained to the end.

    Choosing the settings on the validation rows favours the baseline, which is the side to err on.
    """
    runs = [_train(task, labels, train, valid, seed, rate, decay) for rate in RATES for decay in DECAYS]
    return max(runs, key=lambda values: values[headline(task)])


def _train(
    task: str,
    labels: int,
    train: tuple[Tensor, Tensor],
    valid: tuple[Tensor, Tensor],
    seed: int,
    rate: float,
    decay: float,
) -> dict[str, float]:
    torch.manual_seed(seed)
    x, y = train
    mean, deviation = x.mean(0), x.std(0).clamp_min(1e-6)
    bank = TaskHeadBank(x.shape[1], {task: labels})
    optimizer = torch.optim.AdamW(bank.parameters(), lr=rate, weight_decay=decay)
    steps = EPOCHS * (len(x) // 64 + 1)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).tensor_split(len(x) // 64 + 1):
            own = torch.zeros(len(rows), dtype=torch.int64)
            logits = bank((x[rows] - mean) / deviation, own)
            optimizer.zero_grad()
            task_head_loss(logits, own, y[rows], [labels]).backward()
            optimizer.step()
            scheduler.step()
    with torch.no_grad():
        logits = bank((valid[0] - mean) / deviation, torch.zeros(len(valid[0]), dtype=torch.int64))
    return task_metrics(task, logits.numpy(), np.asarray(valid[1]))
