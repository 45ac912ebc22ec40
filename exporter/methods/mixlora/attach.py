"""MixLoRA in a graph: a router before each feed-forward, and a slot in it for each expert that a token chooses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from eptx.errors import NotSupportedError
from eptx.exporter import ops
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.delta import Delta
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.methods.mixlora.adapter import MixLoraAdapter, MixLoraModule
from eptx.exporter.methods.mixlora.slots import spread, with_slots

_Choice = tuple[ir.Value, ir.Value]


def attach(adapter: MixLoraAdapter, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings) -> None:
    """Puts a MixLoRA adapter into a graph.

    Raises:
        NotSupportedError: the graph does not show where a feed-forward begins and ends.
    """
    routers: dict[tuple[ir.Value, bytes], _Choice] = {}
    begins: dict[ir.Value, _Choice] = {}
    lasts: dict[ir.Node, str] = {}
    for name, site in sites.items():
        module = adapter.modules[name]
        for place in (site, *site.also):
            if module.experts == 1:
                _plain(editor, name, module, place)
                continue
            if place.packed:
                raise NotSupportedError(f"{name} is computed together with other modules: give the base's folder")
            if module.gate is None:
                lasts[place.node] = name
                continue
            key = place.x, module.gate.tobytes()
            if key not in routers:
                routers[key] = _router(editor, adapter, name, module.gate, place.x)
            begins[_first(editor, adapter, name, place, routers[key])] = routers[key]
    for end in spread(editor, begins, adapter.top_k):
        last = lasts.pop(end.node, None)
        if last is None:
            raise NotSupportedError(
                f"{end.node.name or end.node.op_type} reads what experts of a feed-forward give, and the adapter "
                "has no experts for it: train with all projections of the feed-forward in target_modules"
            )
        _last(editor, adapter, last, end.node, end.slots, end.choice)
    if lasts:
        raise NotSupportedError(f"{next(iter(lasts.values()))} does not read what the adapter's experts give")


def _factors(editor: GraphEditor, name: str, module: MixLoraModule) -> tuple[ir.Value, ir.Value]:
    a = module.a.reshape(-1, module.a.shape[2]).T
    b = module.scale * np.swapaxes(module.b, 1, 2).astype(np.float64)
    return editor.constant(f"{name}.lora_A", a), editor.constant(f"{name}.lora_B", b)


def _plain(editor: GraphEditor, name: str, module: MixLoraModule, place: Site) -> None:
    """One pair of factors for all rows."""
    everyone = editor.constant("mixlora.route", np.zeros(1, dtype=np.int64))
    a = editor.constant(f"{name}.lora_A", module.a[0].T[None])
    b = editor.constant(f"{name}.lora_B", (module.scale * module.b[0].astype(np.float64)).T[None])
    editor.adapt(editor.place(place, place, per_row=False), Delta(ops.LowRankDelta, (everyone,), (a, b)))


def _router(editor: GraphEditor, adapter: MixLoraAdapter, name: str, gate: np.ndarray, x: ir.Value) -> _Choice:
    weight = editor.constant(f"{name}.moe_gate", gate, exact=True)
    experts, weights = editor.call(ops.TopExperts, [editor.float32(x), weight], top_k=adapter.top_k)
    return experts, weights


def _first(editor: GraphEditor, adapter: MixLoraAdapter, name: str, place: Site, choice: _Choice) -> ir.Value:
    """Makes slots of a product's output."""
    y, uses = place.y, list(place.y.uses())
    inputs = [editor.float32(y), editor.float32(place.x), choice[0], *_factors(editor, name, adapter.modules[name])]
    new = editor.like(editor.call(ops.ChosenExpertsDelta, inputs)[0], y)
    if y.is_graph_output():
        raise NotSupportedError(f"{name} is an output of the graph: its experts have no place there")
    editor.replace(y, new, uses)
    new.shape = with_slots(y.shape, adapter.top_k)
    editor.adapted.setdefault(name, new)
    return new


def _last(
    editor: GraphEditor, adapter: MixLoraAdapter, name: str, node: ir.Node, slots: ir.Value, choice: _Choice
) -> None:
    """Has a product read the mean of the slots, and adds the experts' updates to it."""
    wide, y = editor.float32(slots), node.outputs[0]
    mean = editor.like(editor.call(ops.ChosenExpertsMean, [wide, choice[1]])[0], slots)
    mean.type = slots.type
    mean.shape = None if slots.shape is None else ir.Shape([*list(slots.shape)[:-2], list(slots.shape)[-1]])
    node.replace_input_with(0, mean)
    uses = list(y.uses())
    inputs = [editor.float32(y), wide, *choice, *_factors(editor, name, adapter.modules[name])]
    new = editor.like(editor.call(ops.ChosenExpertsSum, inputs)[0], y)
    editor.replace(y, new, uses)
    editor.adapted.setdefault(name, new)
