"""LoRA's algebra: W' = W + scale * B A, and DoRA's W'' = magnitude * W' / ||W'|| per output."""

from __future__ import annotations

import numpy as np

from eptx.exporter.methods.lora.adapter import LoraAdapter


def fold(adapter: LoraAdapter, module: str, weight: np.ndarray, task: int) -> np.ndarray:
    """`weight` [out, in] with a task put into it, float64; unchanged if the task does not adapt the module."""
    factors = adapter.by_task[adapter.tasks[task]].get(module)
    if factors is None:
        return weight
    adapted: np.ndarray = weight + factors.scale * factors.b.astype(np.float64) @ factors.a.astype(np.float64)
    if factors.magnitude is None:
        return adapted
    rescaled: np.ndarray = adapted * (factors.magnitude / np.linalg.norm(adapted, axis=1))[:, None]
    return rescaled
