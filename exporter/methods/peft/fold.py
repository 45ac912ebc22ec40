"""One task put into a weight and its bias."""

from __future__ import annotations

import numpy as np

from eptx.exporter.methods.peft.adapter import PeftAdapter


def fold(adapter: PeftAdapter, module: str, weight: np.ndarray, task: int) -> np.ndarray:
    """`weight` [out, in] with a task put into it, float64; unchanged if the task does not change the layer."""
    update = adapter.by_task[adapter.tasks[task]].get(module)
    return weight if update is None else update.fold(weight)


def shift(adapter: PeftAdapter, module: str, task: int) -> np.ndarray | None:
    """What a task adds to a layer's bias, [out]; None for nothing."""
    update = adapter.by_task[adapter.tasks[task]].get(module)
    return None if update is None else update.shift
