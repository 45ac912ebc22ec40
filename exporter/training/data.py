"""Rows of several tasks: from texts and names of labels to what a model is trained on, and how tasks are mixed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

from eptx._one_line import shown, some
from eptx.errors import DataError, UsageError
from eptx.exporter.training.losses import NO_LABEL


class RowEncoder:
    """Makes of a row what a tokenizer and the task heads make of it; for a list of rows, or ``datasets``' ``map``.

    A row has ``task`` (a name), ``text``, perhaps ``text_pair``, and ``label``: the label's name or its number, or of a
    regression the value (as text too, as a CSV file has it). A row without ``label`` is for predictions alone.

    Args:
        tokenizer: of transformers.
        config: the adapter's settings, whose ``tasks`` and ``task_labels`` give the numbers.
        max_length: largest number of tokens; None: what the tokenizer says.

    Raises:
        DataError: a row has no such task or label.
    """

    def __init__(self, tokenizer: Any, config: Any, *, max_length: int | None = None) -> None:
        if not config.task_labels:
            raise UsageError("the adapter's settings have no task_labels: name the labels of each task")
        self.tokenizer, self.max_length = tokenizer, max_length
        self.tasks: list[str] = list(config.tasks)
        self.labels: dict[str, list[str]] = config.task_labels

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The tokenizer's columns, ``task`` (int) and ``labels`` (float: a class index, or the value)."""
        task = row.get("task")
        if task not in self.tasks:
            raise DataError(f"the row {shown(dict(row))} has task {shown(task)}: it must be one of {some(self.tasks)}")
        text, pair = row.get("text"), row.get("text_pair") or None
        if not isinstance(text, str):
            raise DataError(f"a row of task {task!r} has text {shown(text)}: it must be a string")
        found = dict(self.tokenizer(text, pair, truncation=True, max_length=self.max_length))
        found["task"] = self.tasks.index(task)
        if row.get("label") is not None:
            found["labels"] = self._label(task, row["label"])
        return found

    def _label(self, task: str, label: Any) -> float:
        names = self.labels[task]
        if len(names) == 1:
            try:
                value = float(label)
            except (TypeError, ValueError):
                value = math.nan
            if not math.isfinite(value):
                raise DataError(f"label {shown(label)} of task {task!r} is no number, which a task of one label needs")
            return value
        if isinstance(label, str) and label in names:
            return float(names.index(label))
        if type(label) is int and 0 <= label < len(names):
            return float(label)
        raise DataError(f"label {shown(label)} of task {task!r} must be one of {some(names, most=8)}, or its number")


def row_tasks(rows: Any, names: Sequence[str], counts: Sequence[int] | None) -> list[int]:
    """The task id of each row, all checked: what would train a wrong head, or none, is refused.

    Args:
        rows: a dataset that has ``task`` and ``labels`` in each row.
        names: of the tasks, by id.
        counts: number of labels of each task; None where no task has a head.

    Raises:
        DataError: a row has no task, or one that is out of range, or a label that its task has not; a task has no row.
    """
    columns = getattr(rows, "column_names", None)
    if columns is not None and "task" not in columns:
        raise DataError(f"the rows have no column 'task', but {some(list(columns), most=8)}")
    if columns is not None:  # a dataset of columns reads one of them at once
        tasks, labels = list(rows["task"]), list(rows["labels"]) if "labels" in columns else []
    else:
        pairs = [(row.get("task"), row.get("labels")) for row in rows]
        tasks, labels = [task for task, _ in pairs], [label for _, label in pairs]
    for number, task in enumerate(tasks):
        if isinstance(task, bool) or not hasattr(task, "__index__") or not 0 <= task < len(names):
            raise DataError(f"row {number} has task {shown(task)}: it must be an id from 0 to {len(names) - 1}")
    for number, (task, label) in enumerate(zip(tasks, labels, strict=False) if counts else ()):
        if label is None or not math.isfinite(label) or not (counts[task] == 1 or label == NO_LABEL or (  # type: ignore[index]
            float(label).is_integer() and 0 <= label < counts[task]  # type: ignore[index]
        )):  # fmt: skip
            raise DataError(f"row {number} has label {shown(label)}, which task {names[task]!r} has not")
    missing = [name for task, name in enumerate(names) if task not in {int(task) for task in tasks}]
    if missing:
        raise DataError(f"task {missing[0]!r} has no row: give it some, or leave it out of tasks")
    return [int(task) for task in tasks]


class TaskSampler(Sampler[int]):
    """Draws rows so that a task of n rows is drawn in proportion to n to the power ``mix``; an epoch has as many draws
    as there are rows.

    Args:
        tasks: task id of each row.
        mix: 0: all tasks equally often; towards 1: by their size.
        seed: of the draws, with the number of the epoch.
    """

    def __init__(self, tasks: Sequence[int], mix: float, seed: int) -> None:
        ids = torch.tensor(tasks)
        self.weights = torch.bincount(ids)[ids].double() ** (mix - 1)
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Other draws for every epoch, and the same ones when a training is resumed in it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        yield from torch.multinomial(self.weights, len(self), replacement=True, generator=generator).tolist()
