"""Batches of similar length from any mix of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Example:
    """One tokenized row.

    Attributes:
        input_ids: token ids, special tokens included.
        token_type_ids: segment of each token, same length.
        task: task id.
        label: class index, or the target of a regression.
    """

    input_ids: tuple[int, ...]
    token_type_ids: tuple[int, ...]
    task: int
    label: float


@dataclass(frozen=True)
class Batch:
    """Padded rows.

    Attributes:
        inputs: ``input_ids``, ``attention_mask`` and ``token_type_ids``, int64 ``[batch, length]``.
        tasks: int64 ``[batch]``.
        labels: float32 ``[batch]``.
    """

    inputs: dict[str, Tensor]
    tasks: Tensor
    labels: Tensor


def length_batches(lengths: Sequence[int], tokens: int, seed: int | None) -> list[list[int]]:
    """Indices in batches of about ``tokens`` padded tokens each.

    Args:
        lengths: length of every example.
        tokens: largest number of padded tokens in a batch (one row may exceed it).
        seed: shuffles rows of nearly equal length and the order of batches; None keeps both sorted.
    """
    length = np.asarray(lengths)
    rng = np.random.default_rng(seed)
    jitter = rng.uniform(0, 4, len(length)) if seed is not None else np.zeros(len(length))
    batches: list[list[int]] = [[]]
    longest = 0
    for index in np.argsort(length + jitter, kind="stable").tolist():
        longest = max(longest, int(length[index]))
        if batches[-1] and (len(batches[-1]) + 1) * longest > tokens:
            batches.append([])
            longest = int(length[index])
        batches[-1].append(index)
    if seed is not None:
        rng.shuffle(batches)
    return [batch for batch in batches if batch]


def collate(examples: Sequence[Example], pad_token_id: int) -> Batch:
    """Pad examples to the longest of them."""
    length = max(len(example.input_ids) for example in examples)
    ids = torch.full((len(examples), length), pad_token_id, dtype=torch.int64)
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, example in enumerate(examples):
        n = len(example.input_ids)
        ids[row, :n] = torch.tensor(example.input_ids)
        types[row, :n] = torch.tensor(example.token_type_ids)
        mask[row, :n] = 1
    return Batch(
        {"input_ids": ids, "attention_mask": mask, "token_type_ids": types},
        torch.tensor([example.task for example in examples]),
        torch.tensor([example.label for example in examples], dtype=torch.float32),
    )
