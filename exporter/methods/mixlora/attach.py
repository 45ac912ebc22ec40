"""MixLoRA in a graph: a slot in each feed-forward for each expert that a token runs through."""

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
from eptx.exporter.methods.mixlora.choice import ByTask, ByToken, Choice, Chooser
from eptx.exporter.methods.mixlora.slots import spread, with_slots


def attach(adapter: MixLoraAdapter, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings) -> None:
    """Puts a MixLoRA adapter into a graph: with its routers, or with frozen routes.

    Raises:
        NotSupportedError: the graph does not show where a feed-forward begins and ends.
    """
    frozen = settings.mode == "conditioned"
    chooser: Chooser = ByTask(editor, adapter, settings.routes) if frozen else ByToken(editor, adapter)
    numbers = {name: number for number, names in enumerate(adapter.feed_forwards) for name in names}
    choices: dict[tuple[ir.Value, int], Choice] = {}
    begins: dict[ir.Value, Choice] = {}
    lasts: dict[ir.Node, str] = {}
    for name, site in sites.items():
        module = adapter.modules[name]
        for place in (editor.place(site, each, per_row=chooser.per_row) for each in (site, *site.also)):
            if module.experts == 1:
                _plain(editor, name, module, place, chooser.served())
                continue
            if place.packed:
                raise NotSupportedError(f"{name} is computed together with other modules: give the base's folder")
            if module.gate is None:
                lasts[place.node] = name
                continue
            key = place.x, numbers[name]
            if key not in choices:
                choices[key] = chooser.choose(numbers[name], name, place.x)
            begins[_first(editor, adapter, name, place, choices[key])] = choices[key]
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


def _plain(editor: GraphEditor, name: str, module: MixLoraModule, place: Site, served: ir.Value) -> None:
    """One pair of factors for all rows that have an adapter."""
    a = editor.constant(f"{name}.lora_A", module.a[0].T[None])
    b = editor.constant(f"{name}.lora_B", (module.scale * module.b[0].astype(np.float64)).T[None])
    editor.adapt(place, Delta(ops.LowRankDelta, (served,), (a, b)))


def _first(editor: GraphEditor, adapter: MixLoraAdapter, name: str, place: Site, choice: Choice) -> ir.Value:
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
    editor: GraphEditor, adapter: MixLoraAdapter, name: str, node: ir.Node, slots: ir.Value, choice: Choice
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
