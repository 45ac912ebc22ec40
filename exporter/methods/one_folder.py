"""Adapters whose one folder holds all their tasks: what reading such a folder has in common, whatever the method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from eptx.errors import AdapterError, UsageError
from eptx.exporter.adapters.adapter import name_tasks
from eptx.exporter.adapters.checkpoint import WEIGHTS, Checkpoint, ReadOptions, task_names

#: What to do about tensors of a folder that ``eptx convert`` wrote, and that do not fit each other.
CONVERT_AGAIN = "convert the adapter again with eptx convert"


def only(title: str, checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The folder of a method that is called `title`.

    Raises:
        UsageError: several folders were given.
    """
    if len(checkpoints) != 1:
        raise UsageError(f"a folder of {title} holds all its tasks: give one adapter folder")
    return checkpoints[0]


def tasks_by_heads(checkpoint: Checkpoint, options: ReadOptions) -> tuple[str, ...]:
    """Of a method whose routers know no task: as many as are named, else as there are heads, else one."""
    heads = list(checkpoint.heads.weights) if checkpoint.heads else ["task0"]
    return name_tasks(None, options.tasks, task_names(checkpoint.config) or heads)


def common_fields(checkpoint: Checkpoint, tasks: tuple[str, ...]) -> dict[str, Any]:
    """The fields of an `Adapter` that are not its method's."""
    return {
        "tasks": tasks,
        "heads": checkpoint.heads,
        "fingerprint": checkpoint.fingerprint,
        "changes": dict.fromkeys(tasks, checkpoint.whole) if checkpoint.saved else {},
        "trained_as": (checkpoint.trained_as,),
    }


def check_shapes(
    module: str,
    wanted: Iterable[tuple[str, np.ndarray, tuple[int, ...]]],
    *,
    by: str = "with the other tensors",
    todo: str = CONVERT_AGAIN,
) -> None:
    """Compares a module's tensors, by their names behind the module's, with the shapes that they must have.

    Raises:
        AdapterError: one has another shape; `by` says what asks for it, `todo` what to do.
    """
    for key, array, shape in wanted:
        if array.shape != shape:
            said = f"{module}.{key} has shape {list(array.shape)}; {by} it is {list(shape)}"
            raise AdapterError(f"{WEIGHTS}: {said}: {todo}")
