"""Rows to measure on: texts (or token ids) with tasks and labels, the same number of every task."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eptx.errors import DataError
from eptx.files.jsonl import check_row, read_lines
from eptx.runtime.measure.dataset import Located, dataset_rows

#: Rows of one task that are used unless told otherwise.
ROWS_PER_TASK = 128
_LARGEST = 2**63
#: What the items of a list may be, all of them alike.
_ITEMS = (
    lambda item: type(item) is int and 0 <= item < _LARGEST,
    lambda item: isinstance(item, str),
    lambda item: isinstance(item, float),
)

#: The number or name of the right label, the value to predict, or the text to generate; a list of token ids, or of the
#: labels that are right, by number, by name, or as a decimal for each.
Label = int | float | str | tuple[int, ...] | tuple[str, ...] | tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        task: its task.
        text: the text; None if there are token ids.
        text_pair: the second text of a pair.
        input_ids: token ids instead of text.
        label: the right answer; None if unknown.
        where: what messages call it: its file and line.
    """

    task: str
    text: str | None = None
    text_pair: str | None = None
    input_ids: tuple[int, ...] | None = None
    label: Label | None = None
    where: str = field(default="a row", compare=False, repr=False)


@dataclass(frozen=True)
class Source:
    """Where rows come from.

    Attributes:
        rows: a jsonl file; a folder that Hugging Face's ``datasets`` wrote, or of parquet files; or rows in Python.
        task: of all its rows; None where each says its own, or counts for every task (then it has no label, unless
            there is only one task).
    """

    rows: str | Path | Iterable[Mapping[str, Any]]
    task: str | None = None

    @classmethod
    def parse(cls, text: str) -> Source:
        """``[TASK=]PATH``, as command lines and manifests have it; a path with a "=" that is there is a path."""
        task, equals, path = text.partition("=")
        named = equals and task and "/" not in task and not Path(text).exists()
        return cls(Path(path), task) if named else cls(Path(text))

    @property
    def name(self) -> str:
        """What messages call it."""
        if isinstance(self.rows, str | Path):
            return Path(self.rows).name or str(self.rows)
        return "the rows given"


def read_data(
    sources: Sequence[Source], tasks: Sequence[str], most: int = ROWS_PER_TASK, *, others: Sequence[str] = ()
) -> dict[str, list[Row]]:
    """The first rows of every task; sources are read row by row, as far as needed.

    Args:
        sources: what to read, in this order.
        tasks: the tasks that there must be rows of.
        most: rows of one task.
        others: further tasks that a source may have rows of; these are passed over.

    Raises:
        DataError: a source cannot be read, a row has a missing or wrong field, a task is unknown, or has no rows.
        NotSupportedError: a data set needs a package that is not installed.
    """
    found: dict[str, list[Row]] = {task: [] for task in tasks}
    for source in sources:
        if source.task in others:
            continue
        if source.task is not None and source.task not in found:
            raise DataError(f"{source.name}: {_unknown(source.task, found)}")
        for task, rows in _streams(source, tasks):
            _fill(found, task, rows, most, others)
    names = ", ".join(source.name for source in sources) or "no data"
    if not any(found.values()):
        raise DataError(f"{names}: holds no rows")
    empty = [task for task, rows in found.items() if not rows]
    if empty:
        raise DataError(f"{names}: has no rows of {', '.join(empty)}; every task needs some")
    return found


def _unknown(task: object, found: Mapping[str, Any]) -> str:
    return f"unknown task {task!r}; there are {', '.join(found)}"


def _streams(source: Source, tasks: Sequence[str]) -> Iterator[tuple[str | None, Iterator[Located]]]:
    """A source's rows, after their common task, if they have one."""
    if not isinstance(source.rows, str | Path):
        yield source.task, _given(source.rows, source.name)
    elif (path := Path(source.rows)).suffix == ".parquet" or os.path.isdir(path):
        yield from dataset_rows(path, source.task, tasks)
    else:
        yield source.task, read_lines(path, error=DataError, token_ids=True)


def _given(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[Located]:
    """Rows in Python, whose numbers may be NumPy's."""
    for number, given in enumerate(rows, 1):
        where = f"{name}, row {number}"
        if not isinstance(given, Mapping):
            raise DataError(f"{where}: must be a mapping with a string 'text' or a list 'input_ids' of token ids")
        row = {key: _plain(value) for key, value in given.items()}
        yield where, check_row(row, where, DataError, token_ids=True)


def _plain(value: Any) -> Any:
    """A value of NumPy or torch as one of Python."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _fill(
    found: dict[str, list[Row]], task: str | None, rows: Iterator[Located], most: int, others: Sequence[str]
) -> None:
    """Adds the first rows to each task that needs more; ``task``: the task of all rows, if they have one."""
    wanted = list(found) if task is None else [task]
    for where, row in rows:
        if task is None and row.get("task") in others:
            continue
        own = _own_task(row, where, task, found)
        for name in found if own is None else (own,):
            if len(found[name]) < most:
                found[name].append(_row(row, where, name, labelled=own is not None or (len(found) == 1 and not others)))
        if all(len(found[name]) >= most for name in wanted):
            return


def _own_task(row: Mapping[str, Any], where: str, task: str | None, found: Mapping[str, Any]) -> str | None:
    own: str | None = row.get("task", task)
    if own is not None and own not in found:
        raise DataError(f"{where}: {_unknown(own, found)}")
    if task is not None and own != task:
        raise DataError(f"{where}: is of task {own!r}, in data given for {task!r}")
    return own


def _row(row: Mapping[str, Any], where: str, task: str, *, labelled: bool) -> Row:
    ids = row.get("input_ids")
    label = _label(row.get("label"), where)
    return Row(
        task,
        row.get("text"),
        row.get("text_pair"),
        None if ids is None else tuple(ids),
        label if labelled else None,
        where,
    )


def _label(label: Any, where: str) -> Label | None:
    if isinstance(label, list) and any(all(map(fits, label)) for fits in _ITEMS):
        return tuple(label)
    if label is None or isinstance(label, str | float) or (type(label) is int and abs(label) < _LARGEST):
        return label
    shown = "an integer past 64 bits" if type(label) is int else f"{label!r:.60}"
    raise DataError(f"{where}: 'label' must be a number, a name, a text, or a list of labels or token ids, not {shown}")
