"""EPT as operators: a PyramidDelta with the routes of all tasks in tables, or with the router in the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from eptx.exporter import ops
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.delta import Delta
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.graph.shared_input import SharedSite
from eptx.exporter.methods.ept.adapter import EptAdapter, EptModule
from eptx.exporter.methods.ept.fold import route, used_experts


def attach(adapter: EptAdapter, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings) -> None:
    """Puts an EPT adapter into a graph; A, B and the kernels are there once, shared by all tasks."""
    for name, site in sites.items():
        module, places = adapter.modules[name], editor.places(site)
        if settings.mode == "conditioned":
            delta = _by_table(editor, adapter, site)
        elif any(isinstance(place, SharedSite) for place in places):
            delta = _by_router(editor, adapter, places, module, _factors(editor, name, module, site.out_features))
        else:
            delta = _routed(editor, adapter, name, module, _factors(editor, name, module, site.out_features))
        for place in places:
            editor.adapt(place, delta)


def _by_table(editor: GraphEditor, adapter: EptAdapter, site: Site) -> Delta:
    """The routes of all tasks as constants; the row past the last task has weight zero.

    Experts that no task uses are left out, and those that are there numbered anew, in their order.
    """
    name, tasks, top_k = site.module, len(adapter.tasks), adapter.top_k
    module = adapter.modules[name]
    used = used_experts(module, tasks, top_k)
    editor.unused_experts[name] = tuple(e for e in range(len(module.kernels)) if e not in used)
    routes = [route(module, task, top_k) for task in range(tasks)]
    off = (used[:1].repeat(top_k), np.zeros(top_k))
    experts, weights = (np.stack(column) for column in zip(*routes, off, strict=True))
    experts, module = np.searchsorted(used, experts), replace(module, kernels=tuple(module.kernels[e] for e in used))
    factors = _factors(editor, name, module, site.out_features)
    tables = editor.constant(f"{name}.task_experts", experts), editor.constant(f"{name}.task_weights", weights)
    own, attributes = (*tables, *factors), {"in_features": module.in_features}
    return Delta(ops.PyramidDelta, (editor.task_id(),), own, attributes)


def _routed(
    editor: GraphEditor, adapter: EptAdapter, name: str, module: EptModule, factors: Sequence[ir.Value]
) -> Delta:
    """The router within the operator; what it sees of x also counts towards the task that the head infers."""
    own = (*_gate(editor, name, module), *factors)
    attributes = {"in_features": module.in_features, "top_k": adapter.top_k}
    return Delta(ops.RoutedPyramidDelta, (editor.task_id(),), own, attributes)


def _by_router(
    editor: GraphEditor, adapter: EptAdapter, places: Sequence[Site], module: EptModule, factors: Sequence[ir.Value]
) -> Delta:
    """A router for all places of a module: where rows read something of their own; what they share tells nothing."""
    place = next((place for place in places if not isinstance(place, SharedSite)), places[0])
    inputs = [editor.task_id(), place.x, *_gate(editor, place.module, module)]
    experts, weights, similarity = editor.call(ops.PyramidRouter, inputs, top_k=adapter.top_k)
    editor.similarities.append(similarity)
    own, attributes = (experts, weights, *factors), {"in_features": module.in_features}
    return Delta(ops.PyramidDelta, (editor.rows(),), own, attributes)


def _factors(editor: GraphEditor, name: str, module: EptModule, out_features: int) -> tuple[ir.Value, ...]:
    return (
        editor.constant(f"{name}.lora_A", module.a.T),
        editor.constant(f"{name}.lora_B", module.b.T),
        editor.constant(f"{name}.lora_expert_kernels", flat_kernels(module, out_features)),
        editor.constant(f"{name}.kernel_sizes", np.array(module.sizes, dtype=np.int64)),
    )


def flat_kernels(module: EptModule, out_features: int) -> np.ndarray:
    """All kernels, scaled, as [E, out]: kernel e's [c, j] is at c * s_e + j, zeros past its end, cut at out."""
    flat = np.zeros((len(module.kernels), out_features))
    for row, kernel in zip(flat, module.kernels, strict=True):
        row[: kernel.size] = kernel.reshape(-1)[:out_features]
    return flat * module.scale


def _gate(editor: GraphEditor, name: str, module: EptModule) -> tuple[ir.Value, ...]:
    return (
        editor.constant(f"{name}.lora_task_embedding", module.task_embedding, exact=True),
        editor.constant(f"{name}.lora_gate.weight", module.gate_weight, exact=True),
        editor.constant(f"{name}.lora_gate.bias", module.gate_bias, exact=True),
    )
