"""What the trained labels are called, by the files of adapter and base. On purpose the exporter's rule is not used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from eptx.errors import AdapterError
from eptx.exporter.trained import AdapterFiles
from eptx.files.strict_json import read_json_object


def trained_names(
    files: AdapterFiles, task: str, alone: bool, count: int, config: Any = None
) -> tuple[str, ...] | None:
    """The names of a task's labels.

    The first that names as many counts: the adapter's ``task_labels``, the ``config.json`` that some trainers save
    beside it, the configuration of the base.

    Args:
        files: the adapter's folder.
        task: the task's name.
        alone: whether the folder holds no other task.
        count: how many labels it has.
        config: of the base as transformers has it, with as many labels; None if its head is not the task's.
    """
    for names in _told(files, task, alone, config):
        if len(names) == count and list(names) != [f"LABEL_{number}" for number in range(count)]:
            return tuple(names)
    return None


def base_names(config: Any, count: int) -> tuple[str, ...] | None:
    """The names of the base's own labels; None for those that transformers makes up."""
    names = _in_order(config.id2label or {})
    made_up = [f"LABEL_{number}" for number in range(count)]
    return tuple(names) if len(names) == count and names != made_up else None


def _told(files: AdapterFiles, task: str, alone: bool, config: Any) -> Iterator[Sequence[str]]:
    by_task = files.config.get("task_labels") or {}
    if task in by_task or (alone and len(by_task) == 1):
        own = by_task.get(task) or next(iter(by_task.values()))
        yield _in_order(own) if isinstance(own, dict) else own
    beside = files.folder / "config.json"
    if beside.is_file():
        yield _in_order(read_json_object(beside, error=AdapterError).get("id2label") or {})
    if config is not None:
        yield _in_order(config.id2label or {})


def _in_order(names: dict[Any, str]) -> list[str]:
    return [names[key] for key in sorted(names, key=int)]
