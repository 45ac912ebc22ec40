"""LoRA's fold: one task's update in a weight and its bias."""

from __future__ import annotations

import numpy as np

from eptx.exporter.methods.lora.adapter import LoraAdapter


def fold(adapter: LoraAdapter, module: str, weight: np.ndarray, task: int) -> np.ndarray:
    """`weight` [out, in] with a task put into it, float64; unchanged if the task does not adapt the module."""
    update = adapter.update(adapter.tasks[task], module, lambda: weight)
    return weight if update is None else update.fold(weight)


def shift(adapter: LoraAdapter, module: str, task: int) -> np.ndarray | None:
    """What a task adds to the bias of a module; None for nothing."""
    own = adapter.by_task[adapter.tasks[task]].get(module)
    return None if own is None else own.shift
