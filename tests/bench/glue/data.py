"""The rows of the comparison: what all methods are trained, chosen and scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from eptx.exporter.training import Example
from examples.glue_minilm.data import TASKS, read_rows, tokenize

__all__ = ["TASKS", "Data", "read_data"]

#: Training rows of each task that no method trains on: they choose its learning rate.
HELD_OUT = 64


@dataclass(frozen=True)
class Data:
    """Tokenized rows by task; a row's task id is its task's place in `TASKS`.

    Attributes:
        pad: the tokenizer's padding.
        train: what is trained on; a short task's rows are repeated.
        held_out: `HELD_OUT` other training rows.
        valid: what is scored.
    """

    pad: int
    train: Mapping[str, list[Example]]
    held_out: Mapping[str, list[Example]]
    valid: Mapping[str, list[Example]]

    def mixed(self, tasks: Sequence[str]) -> list[Example]:
        """The training rows of some tasks, whose ids are then their places among these."""
        rows = ((task, row) for task in tasks for row in self.train[task])
        return [own(row, tasks.index(task)) for task, row in rows]


def own(row: Example, task: int) -> Example:
    """The same row with another task id."""
    return Example(row.input_ids, row.token_type_ids, task, row.label)


def read_data(folder: Path, base: Path, *, rows: int, seed: int) -> Data:
    """Reads and tokenizes.

    Args:
        folder: of ``<task>.<split>.jsonl``.
        base: whose tokenizer it is.
        rows: training rows of each task; as many validation rows at most, where they are fewer than `HELD_OUT`.
        seed: of the choice among the training rows.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    train, held_out, valid = {}, {}, {}
    for number, task in enumerate(TASKS):
        found = tokenize(tokenizer, read_rows(folder, task, "train"), number)
        order = np.random.default_rng(seed).permutation(len(found))
        held_out[task] = [found[i] for i in order[:HELD_OUT]]
        taken = [found[i] for i in order[HELD_OUT:][:rows]]
        train[task] = taken * max(1, rows // len(taken))
        valid[task] = tokenize(tokenizer, read_rows(folder, task, "validation"), number)
        valid[task] = valid[task][: rows if rows < HELD_OUT else None]
    return Data(tokenizer.pad_token_id, train, held_out, valid)
