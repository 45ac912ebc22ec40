"""What the frozen base reaches with trained heads alone: the number that an adapter must beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from metrics import headline, task_metrics
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader

RATES = (1e-3, 1e-2, 3e-2)
DECAYS = (1e-4, 1e-2)
EPOCHS = 60


def features(base: nn.Module, rows: Sequence[Mapping[str, Any]], collate: Callable[[Any], Any]) -> Tensor:
    """The frozen base's mean over the tokens of every row, ``[rows, hidden]``."""
    base.eval()
    found = []
    with torch.no_grad():
        for batch in DataLoader(rows, batch_size=64, collate_fn=collate):  # type: ignore[arg-type]
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
            kept = inputs["attention_mask"].unsqueeze(2)
            found.append((base(**inputs).last_hidden_state * kept).sum(1) / kept.sum(1))
    return torch.cat(found)


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
    head = nn.Linear(x.shape[1], labels)
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=decay)
    steps = EPOCHS * (len(x) // 64 + 1)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).tensor_split(len(x) // 64 + 1):
            logits = head((x[rows] - mean) / deviation)
            loss = mse_loss(logits[:, 0], y[rows]) / 2 if labels == 1 else cross_entropy(logits, y[rows].long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    with torch.no_grad():
        logits = head((valid[0] - mean) / deviation)
    return task_metrics(task, logits.numpy(), np.asarray(valid[1]))
