"""LoRA as operators: the pairs of all tasks in one bank per module, and a LowRankDelta that picks per row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eptx.errors import NotSupportedError
from eptx.exporter import ops
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.delta import Delta
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.methods.lora.adapter import LoraAdapter


def attach(adapter: LoraAdapter, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings) -> None:
    """Puts LoRA adapters into a graph.

    Raises:
        NotSupportedError: a DoRA adapter, whose norms are of one task's weight.
    """
    for task, modules in adapter.by_task.items():
        if any(module.magnitude is not None for module in modules.values()):
            raise NotSupportedError(f"task {task!r} is a DoRA adapter, which is supported in static mode only")
    for name, site in sites.items():
        a, b = banks(adapter, name)
        own = (editor.constant(f"{name}.lora_A", a), editor.constant(f"{name}.lora_B", b))
        for place in editor.places(site):
            editor.adapt(place, Delta(ops.LowRankDelta, (editor.task_id(),), own))


def banks(adapter: LoraAdapter, module: str) -> tuple[np.ndarray, np.ndarray]:
    """All tasks' factors as [T, in, R] and [T, R, out], R the largest rank, scales multiplied into the second."""
    factors = adapter.of_module(module)
    rank = max(f.a.shape[0] for f in factors.values())
    first = next(iter(factors.values()))
    a = np.zeros((len(adapter.tasks), first.a.shape[1], rank))
    b = np.zeros((len(adapter.tasks), rank, first.b.shape[0]))
    for index, task in enumerate(adapter.tasks):
        if task in factors:
            f = factors[task]
            a[index, :, : f.a.shape[0]] = f.a.T
            b[index, : f.a.shape[0]] = f.scale * f.b.astype(np.float64).T
    return a, b
