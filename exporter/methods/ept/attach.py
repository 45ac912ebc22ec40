"""EPT as operators: a route per module (a folded table, or the router itself) and one PyramidDelta."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from eptx.exporter import ops
from eptx.exporter._shared import SharedSite
from eptx.exporter.attach import AttachPlan, Editor
from eptx.exporter.base.site import Site
from eptx.exporter.methods.ept.adapter import EptAdapter, EptModule
from eptx.exporter.methods.ept.fold import route


def attach(adapter: EptAdapter, editor: Editor, sites: Mapping[str, Site], plan: AttachPlan) -> None:
    """Puts an EPT adapter into a graph; A, B and the kernels are there once, shared by all tasks."""
    for name, module in adapter.modules.items():
        routing = _table if plan.mode == "conditioned" else _once(_router)
        editor.adapt(sites[name], partial(_update, editor, adapter, name, module, routing))


def _update(
    editor: Editor, adapter: EptAdapter, name: str, module: EptModule, routing: _Routing, site: Site, y: ir.Value
) -> ir.Value:
    experts, weights = routing(editor, adapter, name, module, site)
    return editor.call(
        ops.PyramidDelta,
        [
            y,
            site.x,
            experts,
            weights,
            editor.constant(f"{name}.lora_A", module.a),
            editor.constant(f"{name}.lora_B", module.b),
            editor.constant(f"{name}.lora_expert_kernels", flat_kernels(module, site.out_features)),
            editor.constant(f"{name}.kernel_sizes", np.array(module.sizes, dtype=np.int64)),
        ],
        in_features=module.in_features,
    )


def flat_kernels(module: EptModule, out_features: int) -> np.ndarray:
    """All kernels, scaled, as [E, out]: kernel e's [c, j] is at c * s_e + j, zeros past its end."""
    flat = np.zeros((len(module.kernels), out_features))
    for row, kernel in zip(flat, module.kernels, strict=True):
        row[: kernel.size] = kernel.reshape(-1)
    return flat * module.scale


def _table(editor: Editor, adapter: EptAdapter, name: str, module: EptModule, site: Site) -> tuple[ir.Value, ir.Value]:
    """The routes of all tasks as two small tables; the row past the last task has weight zero."""
    routes = [route(module, task, adapter.top_k) for task in range(len(adapter.tasks))]
    off = (np.zeros(adapter.top_k, dtype=np.int64), np.zeros(adapter.top_k))
    experts, weights = (np.stack(column) for column in zip(*routes, off, strict=True))
    task_id = editor.task_id()
    return (
        editor.gather(editor.constant(f"{name}.task_experts", experts), task_id),
        editor.gather(editor.constant(f"{name}.task_weights", weights), task_id),
    )


def _router(editor: Editor, adapter: EptAdapter, name: str, module: EptModule, site: Site) -> tuple[ir.Value, ir.Value]:
    """The router in the graph; what it sees of the input also counts towards the task that the head infers."""
    experts, weights, similarity = editor.call_many(
        ops.PyramidRouter,
        [
            editor.task_id(),
            site.x,
            editor.constant(f"{name}.lora_task_embedding", module.task_embedding),
            editor.constant(f"{name}.lora_gate.weight", module.gate_weight),
            editor.constant(f"{name}.lora_gate.bias", module.gate_bias),
        ],
        outputs=3,
        top_k=adapter.top_k,
    )
    editor.similarities.append(similarity)
    return experts, weights


def _once(routing: _Routing) -> _Routing:
    """One module's route where rows read something of their own; what all rows share tells nothing of their tasks."""
    decided: list[tuple[ir.Value, ir.Value]] = []

    def route_at(*arguments: Any) -> tuple[ir.Value, ir.Value]:
        if not (decided and isinstance(arguments[-1], SharedSite)):
            decided[:] = [routing(*arguments)]
        return decided[0]

    return route_at


_Routing = Callable[[Editor, EptAdapter, str, EptModule, Site], tuple[ir.Value, ir.Value]]
