"""The rows of the comparison: what all methods are trained, chosen and scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, DataCollatorWithPadding

from eptx.peft import EptConfig, RowEncoder
from examples.glue_minilm.data import MAX_LENGTH, TASKS, read_rows

__all__ = ["TASKS", "Data", "Row", "batches", "own", "read_data"]

#: The tokenizer's columns, ``task`` and ``labels``.
Row: TypeAlias = Mapping[str, Any]

#: Training rows of each task that no method trains on: they choose its learning rate.
HELD_OUT = 64


@dataclass(frozen=True)
class Data:
    """Tokenized rows by task; a row's task id is its task's place in `TASKS`.

    Attributes:
        tokenizer: the base's.
        train: what is trained on; a short task's rows are repeated.
        held_out: `HELD_OUT` other training rows.
        valid: what is scored.
    """

    tokenizer: Any
    train: Mapping[str, list[Row]]
    held_out: Mapping[str, list[Row]]
    valid: Mapping[str, list[Row]]

    def mixed(self, tasks: Sequence[str]) -> list[Row]:
        """The training rows of some tasks, whose ids are then their places among these."""
        rows = ((task, row) for task in tasks for row in self.train[task])
        return [own(row, tasks.index(task)) for task, row in rows]


def own(row: Row, task: int) -> Row:
    """The same row with another task id."""
    return {**row, "task": task}


def batches(rows: Sequence[Row], tokenizer: Any) -> Any:
    """The rows in their order, padded, 64 together."""
    return DataLoader(rows, batch_size=64, collate_fn=DataCollatorWithPadding(tokenizer))  # type: ignore[arg-type]


def read_data(folder: Path, base: Path, *, rows: int, seed: int) -> Data:
    """Reads and tokenizes.

    Args:
        folder: of ``<task>.<split>.jsonl``.
        base: whose tokenizer it is.
        rows: training rows of each task; as many validation rows at most, where they are fewer than `HELD_OUT`.
        seed: of the choice among the training rows.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    named = EptConfig(tasks=list(TASKS), task_labels=TASKS, task_head_pooling="mean")
    encode = RowEncoder(tokenizer, named, max_length=MAX_LENGTH)
    train, held_out, valid = {}, {}, {}
    for task in TASKS:
        found = [encode(row) for row in read_rows(folder, task, "train")]
        order = np.random.default_rng(seed).permutation(len(found))
        held_out[task] = [found[i] for i in order[:HELD_OUT]]
        taken = [found[i] for i in order[HELD_OUT:][:rows]]
        train[task] = taken * max(1, rows // len(taken))
        valid[task] = [encode(row) for row in read_rows(folder, task, "validation")]
        valid[task] = valid[task][: rows if rows < HELD_OUT else None]
    return Data(tokenizer, train, held_out, valid)
