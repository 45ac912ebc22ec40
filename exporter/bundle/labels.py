"""What a task's labels are called: as the user says, else the adapter's files, else the base's ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eptx._one_line import some
from eptx.errors import UsageError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.label_names import Names, own_names
from eptx.exporter.options import ExportOptions
from eptx.manifest.names import BASE_TASK
from eptx.progress import note


def told_names(options: ExportOptions, tasks: Sequence[str], known: Sequence[str]) -> dict[str, Names]:
    """Task -> the names that the user gives its labels.

    Args:
        options: of the export.
        tasks: those of the bundle, without the base's.
        known: those of the adapter.

    Raises:
        UsageError: one is not there, or it is not clear which task is meant.
    """
    if None in options.labels and len(tasks) > 1:
        raise UsageError(f"--labels has names for one task; there are {some(list(tasks))}: map each task to its own")
    unknown = next((name for name in options.labels if name not in (None, BASE_TASK, *known)), None)
    if unknown is not None:
        raise UsageError(f"--labels names an unknown task {unknown!r}; there are {some(list(known))}")
    return {tasks[0] if name is None else name: tuple(own) for name, own in options.labels.items()}


def label_names(
    task: str, count: int | None, adapter: Adapter, told: Mapping[str, Names], config: Mapping[str, Any]
) -> Names | None:
    """The names of a task's labels; None where nothing names as many.

    Args:
        task: its name.
        count: how many labels it has; None or 0: it has no classifier.
        adapter: the adapter.
        told: what the user says.
        config: ``config.json`` of the base.

    Raises:
        UsageError: the user names another number of labels.
    """
    said = told.get(task)
    if said is not None:
        if len(said) != (count or 0):
            raise UsageError(f"--labels names {len(said)} labels of task {task!r}; it has {count or 'none'}")
        return said
    if not count:
        return None
    own = adapter.label_names.get(task, ())
    base = own_names(config)
    fitting = next((names for names in (*own, *([base] if base else [])) if len(names) == count), None)
    if own and fitting not in own:
        note(f"the adapter names {len(own[0])} labels of task {task!r}, which has {count}: these names are left out")
    return fitting
