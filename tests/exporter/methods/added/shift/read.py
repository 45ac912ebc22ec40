"""Reads shift adapters: ``<module>.shift_v`` [tasks, out]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import AdapterError, UsageError
from eptx.exporter.adapters.adapter import name_tasks, natural_key
from eptx.exporter.adapters.checkpoint import (
    WEIGHTS,
    Checkpoint,
    ReadOptions,
    group_by_module,
    refuse_rest,
    take,
    task_names,
)
from eptx.exporter.methods.shift.adapter import ShiftAdapter


def matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    """``peft_type``."""
    return config.get("peft_type") == "SHIFT"


def read(checkpoints: Sequence[Checkpoint], options: ReadOptions) -> ShiftAdapter:
    """The shift adapter of one folder.

    Raises:
        AdapterError: tensors are missing, extra, or do not fit each other.
        UsageError: several folders.
    """
    if len(checkpoints) != 1:
        raise UsageError("an Shift adapter holds all its tasks: give one adapter folder")
    (checkpoint,) = checkpoints
    grouped = group_by_module(checkpoint.tensors, "shift_")
    vectors = {name: _module(name, grouped[name]) for name in sorted(grouped, key=natural_key)}
    counts = {len(each) for each in vectors.values()}
    if len(counts) != 1:
        raise AdapterError(f"{WEIGHTS}: modules disagree on the number of tasks: {sorted(counts)}")
    tasks = name_tasks(counts.pop(), options.tasks, task_names(checkpoint.config))
    return ShiftAdapter(
        tasks=tasks,
        heads=checkpoint.heads,
        fingerprint=checkpoint.fingerprint,
        changes=dict.fromkeys(tasks, checkpoint.whole) if checkpoint.saved else {},
        trained_as=(checkpoint.trained_as,),
        vectors=vectors,
    )


def _module(name: str, parts: dict[str, np.ndarray]) -> np.ndarray:
    vectors = take(parts, name, "shift_v", 2)
    refuse_rest(parts, name)
    return vectors
