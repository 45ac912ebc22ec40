"""The user's own texts as batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eptx._jsonl import read_rows
from eptx.bundle import Bundle
from eptx.errors import DataError, RequestError
from eptx.exporter.validation.batches import Batch
from eptx.exporter.validation.options import ValidateOptions
from eptx.runtime._tokenizer import Tokenizer

_ROWS = 16


def from_data(bundle: Bundle, options: ValidateOptions, names: Sequence[str]) -> list[Batch]:
    """Batches of the file's first rows of every task; rows without a task are of the first, or inferred.

    Args:
        bundle: whose tokenizer to use.
        options: where the file is, and how many rows of a task to take.
        names: what a row's task may be.

    Raises:
        DataError: the file cannot be read, names an unknown task, or holds no rows.
        RequestError, NotSupportedError: the bundle cannot tokenize.
    """
    if options.data is None:
        return []
    default = "auto" if "auto" in names else names[0]
    picked: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(options.data, error=DataError):
        task = row.get("task", default)
        if task not in names:
            if len(names) == 1:
                continue  # one file may serve the bundles of several tasks
            raise DataError(f"{options.data.name}: task {task!r} is not one of {', '.join(names)}")
        rows = picked.setdefault(task, [])
        if len(rows) < options.rows:
            rows.append(row)
    if not picked:
        raise DataError(f"{options.data.name}: has no rows of {', '.join(names)}")
    tokenizer = _tokenizer(bundle)
    flat = [(task, row) for task, rows in picked.items() for row in rows]
    # pairs and single texts are tokenized apart; tasks are mixed
    flat.sort(key=lambda item: ("text_pair" in item[1], len(item[1]["text"]) + len(item[1].get("text_pair", ""))))
    groups = [flat[i : i + _ROWS] for i in range(0, len(flat), _ROWS)]
    return [_batch(tokenizer, group, f"data {i}") for i, group in enumerate(groups)]


def _tokenizer(bundle: Bundle) -> Tokenizer:
    try:
        return Tokenizer(bundle)
    except RequestError as error:
        raise DataError(f"--data needs a tokenizer: {error}") from None


def _batch(tokenizer: Tokenizer, group: list[tuple[str, dict[str, Any]]], name: str) -> Batch:
    texts = [(row["text"], row["text_pair"]) if "text_pair" in row else row["text"] for _, row in group]
    arrays = {key: np.asarray(array) for key, array in tokenizer(texts).items()}
    return Batch(name, arrays, tuple(task for task, _ in group), None, tuple(row.get("label") for _, row in group))
