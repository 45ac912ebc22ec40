"""EPT as operators: tables of experts (of all tasks, or of the rows by the router itself) and a PyramidDelta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from eptx.exporter import ops
from eptx.exporter._delta import Delta, in_groups
from eptx.exporter._shared import SharedSite
from eptx.exporter.attach import AttachPlan, Editor
from eptx.exporter.base.site import Site
from eptx.exporter.methods.ept.adapter import EptAdapter, EptModule
from eptx.exporter.methods.ept.fold import route

#: experts and their weights
_Tables = tuple[ir.Value, ir.Value]


def attach(adapter: EptAdapter, editor: Editor, sites: Mapping[str, Site], plan: AttachPlan) -> None:
    """Puts an EPT adapter into a graph; A, B and the kernels are there once, shared by all tasks."""
    places = {name: editor.places(sites[name]) for name in adapter.modules}
    if plan.mode == "conditioned":
        rows, routed = editor.task_id(), {}
    else:
        rows, routed = editor.rows(), _route(editor, adapter, places)
    for name, module in adapter.modules.items():
        factors = _factors(editor, name, module, sites[name].out_features)
        for place in places[name]:
            tables = routed.get(place) or _tables(editor, adapter, name, module)
            attributes = {"in_features": module.in_features}
            editor.adapt(place, Delta(ops.PyramidDelta, (rows,), (*tables, *factors), attributes))


def _factors(editor: Editor, name: str, module: EptModule, out_features: int) -> tuple[ir.Value, ...]:
    return (
        editor.constant(f"{name}.lora_A", module.a.T),
        editor.constant(f"{name}.lora_B", module.b.T),
        editor.constant(f"{name}.lora_expert_kernels", flat_kernels(module, out_features)),
        editor.constant(f"{name}.kernel_sizes", np.array(module.sizes, dtype=np.int64)),
    )


def flat_kernels(module: EptModule, out_features: int) -> np.ndarray:
    """All kernels, scaled, as [E, out]: kernel e's [c, j] is at c * s_e + j, zeros past its end."""
    flat = np.zeros((len(module.kernels), out_features))
    for row, kernel in zip(flat, module.kernels, strict=True):
        row[: kernel.size] = kernel.reshape(-1)
    return flat * module.scale


def _tables(editor: Editor, adapter: EptAdapter, name: str, module: EptModule) -> _Tables:
    """The routes of all tasks; the row past the last task has weight zero."""
    routes = [route(module, task, adapter.top_k) for task in range(len(adapter.tasks))]
    off = (np.zeros(adapter.top_k, dtype=np.int64), np.zeros(adapter.top_k))
    experts, weights = (np.stack(column) for column in zip(*routes, off, strict=True))
    return editor.constant(f"{name}.task_experts", experts), editor.constant(f"{name}.task_weights", weights)


def _route(editor: Editor, adapter: EptAdapter, places: Mapping[str, Sequence[Site]]) -> dict[Site, _Tables]:
    """The routers in the graph; what they see of the input also counts towards the task that the head infers.

    A module routes where rows read something of their own; what all rows share tells nothing of their tasks.
    """
    routing = {
        name: [place for place in of if not isinstance(place, SharedSite)] or [of[0]] for name, of in places.items()
    }
    routed: dict[Site, _Tables] = {}
    in_order = editor.in_order(place for of in routing.values() for place in of)
    for group in in_groups(in_order, key=lambda place: place.x):
        own = [value for place in group for value in _gate(editor, place.module, adapter.modules[place.module])]
        inputs = [editor.task_id(), group[0].x, *own]
        outputs = editor.call(ops.PyramidRouter, inputs, len(group), top_k=adapter.top_k)
        for place, experts, weights, similarity in zip(group, *(outputs[i::3] for i in range(3)), strict=True):
            routed[place] = experts, weights
            editor.similarities.append(similarity)
    return {place: routed.get(place, routed[routing[name][0]]) for name, of in places.items() for place in of}


def _gate(editor: Editor, name: str, module: EptModule) -> tuple[ir.Value, ...]:
    return (
        editor.constant(f"{name}.lora_task_embedding", module.task_embedding),
        editor.constant(f"{name}.lora_gate.weight", module.gate_weight),
        editor.constant(f"{name}.lora_gate.bias", module.gate_bias),
    )
