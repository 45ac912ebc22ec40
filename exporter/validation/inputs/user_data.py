"""The user's own texts as batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eptx.bundle import Bundle
from eptx.errors import DataError
from eptx.exporter.validation.base.source import BaseSource
from eptx.exporter.validation.base.tokenizer import BaseTokenizer
from eptx.exporter.validation.inputs.vocabulary import Vocabulary
from eptx.exporter.validation.options import ValidateOptions, is_dataset
from eptx.files.jsonl import read_rows
from eptx.manifest.names import AUTO_TASK, BASE_TASK
from eptx.runtime.measure import Source, read_data
from eptx.runtime.validation.batch import Batch

#: Rows of one batch, and of a task by default.
_ROWS, _PER_TASK = 16, 64


#: Task -> its rows, as the user gave them.
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def read_texts(options: ValidateOptions, names: Sequence[str]) -> Rows:
    """Reads the first rows of every task; the task of rows without one is the first, or inferred.

    Args:
        options: where the data is, and how many rows of a task to take.
        names: the tasks that rows may have.

    Raises:
        DataError: the data cannot be read, names an unknown task, or holds no rows.
    """
    if not options.sources:
        return {}
    default, most = AUTO_TASK if AUTO_TASK in names else names[0], options.rows or _PER_TASK
    picked: dict[str, list[dict[str, Any]]] = {}
    for source in options.sources:
        for row in _rows(source, names, most):
            task = row.get("task", source.task or default)
            if task not in names:
                if len(names) == 1:
                    continue  # one file may serve the bundles of several tasks
                raise DataError(f"{source.name}: task {task!r} is not one of {', '.join(names)}")
            rows = picked.setdefault(task, [])
            if len(rows) < most:
                rows.append(row)
    if not picked:
        raise DataError(f"{', '.join(s.name for s in options.sources)}: has no rows of {', '.join(names)}")
    return picked


def from_data(bundle: Bundle, rows: Rows, base: Path, longest: int | None, home: Path | None = None) -> list[Batch]:
    """Batches of rows.

    Args:
        bundle: whose inputs to make.
        rows: the rows of every task.
        base: the base's transformers folder; its tokenizer is used, since the bundle's is what is validated.
        home: the adapter's folder, where that has the tokenizer that was trained with.
        longest: the most tokens that the base reads, where texts are cut; None: no limit.

    Raises:
        DataError: the base has no tokenizer, or a text has no tokens.
    """
    if not rows:
        return []
    tokenizer = _tokenizer(bundle, BaseSource(base, home), longest)
    encoder = bundle.manifest.encoder
    inputs = [spec.name for spec in (bundle.manifest.inputs if encoder is None else encoder.inputs)]
    flat = [(task, row) for task, own in rows.items() for row in own]
    # pairs and single texts are tokenized apart; tasks are mixed
    flat.sort(key=lambda item: ("text_pair" in item[1], len(item[1]["text"]) + len(item[1].get("text_pair", ""))))
    groups = [flat[i : i + _ROWS] for i in range(0, len(flat), _ROWS)]
    return [_batch(tokenizer, inputs, group, f"data {i}") for i, group in enumerate(groups)]


def check_tokens(batches: Sequence[Batch], vocabulary: Vocabulary) -> None:
    """Refuses texts with tokens that the task of their row lacks.

    Raises:
        DataError: it names the first of them.
    """
    for batch in batches:
        for row, task in enumerate(batch.tasks):
            known = vocabulary.shared([task]).size
            ids = batch.arrays["input_ids"][row] if "input_ids" in batch.arrays else np.zeros(1)
            largest = (ids if batch.kept is None else ids[batch.kept[row]]).max()
            if largest >= known:
                raise DataError(f"a text of {task} holds token id {largest}; the task has token ids 0 to {known - 1}")


def _rows(source: Source, names: Sequence[str], most: int) -> Iterator[dict[str, Any]]:
    """Rows with their fields: all rows of a jsonl file, or the first ones of every task of other data."""
    if isinstance(source.rows, str | Path) and not is_dataset(Path(source.rows)):
        yield from read_rows(Path(source.rows), error=DataError)
        return
    tasks = [source.task] if source.task is not None else [name for name in names if name not in (AUTO_TASK, BASE_TASK)]
    for task, rows in read_data([source], tasks, most).items():
        for row in rows:
            if row.text is None:
                raise DataError(f"{source.name}: the reference is given texts, not input_ids")
            fields = {"task": task, "text": row.text, "text_pair": row.text_pair, "label": row.label}
            yield {key: value for key, value in fields.items() if value is not None}


def _tokenizer(bundle: Bundle, source: BaseSource, longest: int | None) -> BaseTokenizer:
    if source.tokenizer is None:
        raise DataError("--data needs a tokenizer, and the base has none")
    if bundle.manifest.generation is not None:
        return BaseTokenizer(source.tokenizer, None, cut=False, prompts=True)
    return BaseTokenizer(source.tokenizer, longest)


def _batch(
    tokenizer: BaseTokenizer, inputs: Sequence[str], group: Sequence[tuple[str, Mapping[str, Any]]], name: str
) -> Batch:
    rows = [(row["text"], row["text_pair"]) if "text_pair" in row else row["text"] for _, row in group]
    arrays = tokenizer.arrays(rows, inputs)
    empty = ~arrays["attention_mask"].any(axis=1) if "attention_mask" in arrays else np.zeros(0, bool)
    if empty.any():
        raise DataError(f"the text {rows[int(empty.argmax())]!r} has no tokens")
    return Batch(name, arrays, tuple(task for task, _ in group), None, tuple(row.get("label") for _, row in group))
