"""The names of labels, as files give them: a list, or transformers' ``id2label``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from eptx._one_line import shown
from eptx.errors import UsageError
from eptx.files.strict_json import read_json

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
