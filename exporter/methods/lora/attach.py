"""LoRA as operators: the pairs of all tasks in one bank per module, and a LowRankDelta that picks per row."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import onnx_ir as ir

from eptx.errors import NotSupportedError
from eptx.exporter import ops
from eptx.exporter.attach import AttachPlan, Editor
from eptx.exporter.base.site import Site
from eptx.exporter.methods.lora.adapter import LoraAdapter


def attach(adapter: LoraAdapter, editor: Editor, sites: Mapping[str, Site], plan: AttachPlan) -> None:
    """Puts LoRA adapters into a graph.

    Raises:
        NotSupportedError: dynamic mode (LoRA has no router), or a DoRA adapter, whose norms are of one task's weight.
    """
    if plan.mode == "dynamic":
        raise NotSupportedError("LoRA has no router: use --mode conditioned or --mode static")
    for task, modules in adapter.by_task.items():
        if any(module.magnitude is not None for module in modules.values()):
            raise NotSupportedError(f"task {task!r} is a DoRA adapter, which is supported in static mode only")
    for name in adapter.module_names:
        editor.adapt(sites[name], partial(_update, editor, adapter, name))


def _update(editor: Editor, adapter: LoraAdapter, name: str, site: Site, y: ir.Value) -> ir.Value:
    a, b = banks(adapter, name)
    bank = [editor.constant(f"{name}.lora_A", a), editor.constant(f"{name}.lora_B", b)]
    return editor.call(ops.LowRankDelta, [y, site.x, editor.task_id(), *bank])


def banks(adapter: LoraAdapter, module: str) -> tuple[np.ndarray, np.ndarray]:
    """All tasks' factors as [T, R, in] and [T, R, out], R the largest rank, scales multiplied into the second."""
    factors = adapter.of_module(module)
    rank = max(f.a.shape[0] for f in factors.values())
    first = next(iter(factors.values()))
    a = np.zeros((len(adapter.tasks), rank, first.a.shape[1]))
    b = np.zeros((len(adapter.tasks), rank, first.b.shape[0]))
    for index, task in enumerate(adapter.tasks):
        if task in factors:
            f = factors[task]
            a[index, : f.a.shape[0]] = f.a
            b[index, : f.a.shape[0]] = f.scale * f.b.astype(np.float64).T
    return a, b
