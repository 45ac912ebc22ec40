"""Rows of a folder that Hugging Face's ``datasets`` wrote, or of parquet files as its hub has them.

Arrow and parquet files are read one batch of rows at a time.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from eptx._one_line import one_line
from eptx.errors import DataError, NotSupportedError
from eptx.files.jsonl import check_row
from eptx.files.safe_files import is_contained_name, open_regular
from eptx.files.strict_json import parse_json, read_json_object

#: The first of these splits that exists is read.
SPLITS = ("validation", "validation_matched", "dev", "test", "train")
#: Columns for a row's text and the second text of a pair; the first that exist are read.
TEXTS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text",),
    ("sentence",),
    ("prompt",),
)
#: Columns for a row's label, likewise.
LABELS = ("label", "labels", "completion")

_BATCH = 256
_DEPTH = 3
#: Names of a folder's folders, and of the split -> files.
_Parts = dict[tuple[str, ...], list[Path]]
#: A row's name for messages, and the row.
Located = tuple[str, dict[str, Any]]


def dataset_rows(
    folder: Path, task: str | None, tasks: Sequence[str]
) -> Iterator[tuple[str | None, Iterator[Located]]]:
    """A data set's rows, task by task if it is sorted so; each row after its name for messages.

    If splits or folders are named like tasks, they hold these tasks' rows. Of other splits only one is read: the first
    of `SPLITS`, or the only one.

    Args:
        folder: what ``save_to_disk`` of a data set or of several splits wrote; or a folder of parquet files
            ``<split>-*.parquet``, in folders of configurations or not; or one parquet file.
        task: whose rows are wanted; None: of all tasks.
        tasks: their names.

    Raises:
        DataError: there is no data set, it is damaged, or its columns are not understood.
        NotSupportedError: ``pyarrow`` is not installed.
    """
    arrow = _pyarrow()
    try:
        parts: _Parts = _parts(folder, _DEPTH) if os.path.isdir(folder) else {(): [folder]}
    except OSError as error:
        raise DataError(f"{folder.name}: cannot be listed: {error.strerror}") from None
    if not parts:
        raise DataError(f"{folder.name}: holds no data set: neither what save_to_disk writes nor parquet files")
    named = [name for name in (tasks if task is None else (task,)) if any(name in key for key in parts)]
    for name in named:
        mine = {tuple(part for part in key if part != name): files for key, files in parts.items() if name in key}
        yield name, _located(arrow, folder, _choose(folder, mine))
    if not named:
        yield task, _located(arrow, folder, _choose(folder, parts))


def _pyarrow() -> Any:
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError:
        raise NotSupportedError(
            "folders of data sets and parquet files need the pyarrow package; pip install 'eptx[calibrate]'"
        ) from None


def _parts(folder: Path, depth: int) -> _Parts:
    """The arrow or parquet files below a folder."""
    if (folder / "state.json").is_file():
        return {(): _arrow_files(folder)}
    if (folder / "dataset_dict.json").is_file():
        return {(name,): _arrow_files(folder / name) for name in _names(folder / "dataset_dict.json", "splits")}
    found: _Parts = {}
    for entry in sorted(folder.iterdir()) if depth else ():
        if entry.is_dir() and not entry.name.startswith("."):
            for key, files in _parts(entry, depth - 1).items():
                found.setdefault(key if entry.name == "data" else (entry.name, *key), []).extend(files)
        elif entry.suffix == ".parquet":
            split = entry.stem.split("-")[0]
            found.setdefault(() if split.isdigit() else (split,), []).append(entry)
    return found


def _arrow_files(folder: Path) -> list[Path]:
    return [folder / name for name in _names(folder / "state.json", "_data_files")]


def _names(file: Path, key: str) -> list[str]:
    """A list of names in a JSON file, which may be objects with a ``filename``."""
    given = read_json_object(file, error=DataError).get(key)
    items = given if isinstance(given, list) else [None]
    found = [item.get("filename") if isinstance(item, dict) else item for item in items]
    names = [name for name in found if isinstance(name, str) and is_contained_name(name)]
    if len(names) < len(found):
        raise DataError(f"{file.parent.name}/{file.name}: {key!r} is not a list of names")
    return names


def _choose(folder: Path, parts: _Parts) -> list[Path]:
    """The files of one split of one data set."""
    if len(parts) == 1:
        return next(iter(parts.values()))
    homes = sorted({"/".join(key[:-1]) for key in parts})
    if len(homes) > 1:
        raise DataError(f"{folder.name}: holds several data sets ({_listed(homes)}); give the folder of one")
    splits = {key[-1] if key else "": files for key, files in parts.items()}
    for name in SPLITS:
        if name in splits:
            return splits[name]
    raise DataError(
        f"{folder.name}: has splits {_listed(splits)}; none of them is {', '.join(SPLITS)} or named like a task"
    )


def _listed(names: Iterable[str]) -> str:
    """Names from a file, which may hold anything."""
    return ", ".join(map(repr, names))[:200]


def _located(arrow: Any, folder: Path, files: Sequence[Path]) -> Iterator[Located]:
    for file in files:
        name = (folder.name / file.relative_to(folder)).as_posix()
        with open_regular(file, error=DataError) as opened:
            for number, row in enumerate(_read(arrow, name, opened), 1):
                where = f"{name}, row {number}"
                yield where, check_row(row, where, DataError, token_ids=True)


def _read(arrow: Any, name: str, opened: BinaryIO) -> Iterator[dict[str, Any]]:
    """The rows of one file, with our names of the columns."""
    try:
        schema, batches = (_open_parquet if name.endswith(".parquet") else _open_arrow)(arrow, opened)
        columns = _columns(name, schema.names)
        theirs = sorted(set(columns.values()))
        hidden = -1 if _is_class_label(schema, columns.get("label"), name) else None
        for batch in batches(theirs):
            batch.validate(full=True)  # offsets of a damaged arrow file may point anywhere
            for start in range(0, batch.num_rows, _BATCH):
                for row in batch.select(theirs).slice(start, _BATCH).to_pylist():
                    yield _renamed(row, columns, hidden)
    except DataError:
        raise
    except Exception as error:  # pyarrow raises many kinds
        raise DataError(f"{name}: cannot be read: {one_line(error, 200)}") from None


#: From wanted columns to batches that have them.
_Batches = Callable[[list[str]], Iterator[Any]]


def _open_parquet(arrow: Any, opened: BinaryIO) -> tuple[Any, _Batches]:
    file = arrow.parquet.ParquetFile(opened)
    return file.schema_arrow, lambda columns: file.iter_batches(_BATCH, columns=columns)


def _open_arrow(arrow: Any, opened: BinaryIO) -> tuple[Any, _Batches]:
    stream = arrow.ipc.open_stream(opened)
    return stream.schema, lambda columns: iter(stream)


def _columns(where: str, names: Sequence[str]) -> dict[str, str]:
    """Our names of the columns -> the file's."""
    columns = {"task": "task"} if "task" in names else {}
    texts = next((texts for texts in TEXTS if set(texts) <= set(names)), None)
    if texts is not None:
        columns |= dict(zip(("text", "text_pair"), texts, strict=False))
    elif "input_ids" in names:
        columns |= {name: name for name in ("input_ids", "attention_mask") if name in names}
    else:
        known = ", ".join("+".join(texts) for texts in TEXTS)
        raise DataError(f"{where}: no column of texts; it has {_listed(names)}; understood are {known} and input_ids")
    label = next((name for name in LABELS if name in names), None)
    return columns if label is None else columns | {"label": label}


def _is_class_label(schema: Any, column: str | None, where: str) -> bool:
    """Whether a column holds class numbers, where the hub writes -1 for a hidden label."""
    written = (schema.metadata or {}).get(b"huggingface")
    value: Any = parse_json(written, what=f"{where}: its metadata", error=DataError) if written else None
    for key in ("info", "features", column, "_type"):
        value = value.get(key) if isinstance(value, dict) else None
    return bool(value == "ClassLabel")


def _renamed(row: Mapping[str, Any], columns: Mapping[str, str], hidden: int | None) -> dict[str, Any]:
    renamed = {ours: row[theirs] for ours, theirs in columns.items()}
    if hidden is not None and renamed.get("label") == hidden:
        renamed["label"] = None
    mask = renamed.pop("attention_mask", None)
    if mask is not None and isinstance(renamed["input_ids"], list):
        renamed["input_ids"] = [i for i, there in zip(renamed["input_ids"], mask, strict=True) if there]
    return renamed
