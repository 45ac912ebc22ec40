"""The names of labels, as files give them: a list, or transformers' ``id2label``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from eptx._one_line import shown
from eptx.errors import AdapterError, UsageError
from eptx.files.strict_json import read_json, read_json_object

_CONFIG = "adapter_config.json"
#: The names of one task's labels, by number.
Names: TypeAlias = tuple[str, ...]


def names_in(value: Any) -> Names | None:
    """The names in a list or an ``id2label``; None where it is neither, or leaves one out."""
    if isinstance(value, Mapping):
        found = {int(key): name for key, name in value.items() if str(key).isdecimal()}
        value = [found.get(index) for index in range(len(value))]
    if not isinstance(value, list) or not value:
        return None
    return tuple(value) if all(isinstance(name, str) and name.isprintable() and name for name in value) else None


def own_names(config: Mapping[str, Any]) -> Names | None:
    """The names in a ``config.json``; None for those that transformers makes up (``LABEL_0``)."""
    names = names_in(config.get("id2label"))
    return None if names == tuple(f"LABEL_{index}" for index in range(len(names or ()))) else names


def read_labels(path: Path) -> dict[str | None, Names]:
    """Reads the file of ``--labels``: task -> names, or the names alone, which are then of the only task (None).

    Raises:
        UsageError: it is of another form.
    """
    value = read_json(path, error=UsageError)
    alone = names_in(value)
    if alone is not None:
        return {None: alone}
    if not isinstance(value, dict) or not value:
        raise UsageError(f'{path}: must map tasks to labels, each ["no", "yes"] or {{"0": "no", "1": "yes"}}')
    found: dict[str | None, Names] = {}
    for task, labels in value.items():
        names = names_in(labels)
        if names is None:
            raise UsageError(f"{path}: {task!r} must have a list of names, or one for each number, not {shown(labels)}")
        found[task] = names
    return found


def names_beside(folder: Path, config: Mapping[str, Any]) -> dict[str | None, Names]:
    """Task -> the names of its labels in an adapter's configuration; of None those in a ``config.json`` beside it.

    Raises:
        AdapterError: they are of another form.
    """
    given = config.get("task_labels") or {}
    if not isinstance(given, dict):
        raise AdapterError(f"{_CONFIG}: task_labels must map a task to the names of its labels")
    found: dict[str | None, Names] = {}
    for task, labels in given.items():
        names = names_in(labels)
        if names is None:
            raise AdapterError(f"{_CONFIG}: task_labels of {task!r} must be a list of names")
        found[task] = names
    beside = folder / "config.json"
    names = own_names(read_json_object(beside, error=AdapterError)) if beside.is_file() else None
    return found if names is None else {**found, None: names}


def check_names(names: Mapping[str | None, Names], heads: Mapping[str, int]) -> None:
    """Compares the names with the heads beside the adapter.

    Args:
        names: `names_beside`.
        heads: task -> how many labels its head has.

    Raises:
        AdapterError: a task has no head, or another number of labels.
    """
    for task, own in names.items():
        if task is not None and task not in heads:
            raise AdapterError(f"{_CONFIG}: task_labels names {task!r}, which has no head in task_heads.safetensors")
        if task is not None and len(own) != heads[task]:
            raise AdapterError(f"{_CONFIG}: task_labels of {task!r} has {len(own)} names for {heads[task]} labels")
