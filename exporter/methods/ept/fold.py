"""EPT's algebra: a task's experts, and the change of weight that they amount to.

p = softmax(G tau + g);  experts = the K largest;  w = softmax(p[experts])
D_e[c * s + j, i] = kappa_e[c, j] (B A)[c, i]   for c < max(1, out // s), i < max(1, in // s), c * s + j < out; else 0
W' = W + scale * sum_k w_k D_{e_k}
"""

from __future__ import annotations

import numpy as np

from eptx.exporter.methods.ept.adapter import EptAdapter, EptModule


def route(module: EptModule, task: int, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """The experts that a module uses for a task, most probable first, and their weights.

    Returns:
        experts int64 [K]; weights float64 [K], which sum to 1.
    """
    gate = module.gate_weight.astype(np.float64) @ module.task_embedding[task].astype(np.float64) + module.gate_bias
    probabilities = _softmax(gate)
    experts = np.argsort(-probabilities, kind="stable")[:top_k]
    return experts, _softmax(probabilities[experts])


def used_experts(module: EptModule, tasks: int, top_k: int) -> np.ndarray:
    """The experts that at least one of the first `tasks` tasks uses, int64, by their number."""
    return np.unique([route(module, task, top_k)[0] for task in range(tasks)])


def delta(module: EptModule, task: int, top_k: int, out_features: int) -> np.ndarray:
    """The change of weight that a task makes, float64 [out, in]."""
    experts, weights = route(module, task, top_k)
    total = np.zeros((out_features, module.in_features))
    for expert, weight in zip(experts, weights, strict=True):
        kernel = module.kernels[expert].astype(np.float64)
        rows, size = kernel.shape
        window = max(1, module.in_features // size)
        core = module.b[:rows].astype(np.float64) @ module.a[:, :window].astype(np.float64)
        wide = (kernel[:, :, None] * core[:, None, :]).reshape(rows * size, window)[:out_features]
        total[: len(wide), :window] += weight * wide
    return module.scale * total


def fold(adapter: EptAdapter, module: str, weight: np.ndarray, task: int) -> np.ndarray:
    """`weight` [out, in] with a task put into it, float64."""
    folded: np.ndarray = weight + delta(adapter.modules[module], task, adapter.top_k, weight.shape[0])
    return folded


def _softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max())
    result: np.ndarray = exponentials / exponentials.sum()
    return result
