"""TuckA as operators: a route for each call of the router (tables, or the router itself), a TuckerDelta per module.

The released update is one of the input, x' = x + alpha ((x u) M) u^T; moved past W it is one of the output. Either is
the same operator with another last factor, and the narrower side is the cheaper one: a feed-forward layer's first
product, four times as wide as its input, gets its input updated. Elsewhere x stays what it is, so that modules which
read one x still share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from eptx.errors import NotSupportedError
from eptx.exporter import ops
from eptx.exporter.adapters.routing.route import Frozen
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.delta import Delta
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.graph.shared_input import SharedSite
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from eptx.exporter.methods.tucka.calls import Calls
from eptx.exporter.methods.tucka.fold import normalized
from eptx.manifest.names import ROUTE_GROUP, ROUTE_WEIGHTS, USED


@dataclass(frozen=True)
class _Routed:
    """A route in a graph: int64 group and float weights, of every row or of the batch."""

    values: tuple[ir.Value, ir.Value]
    per_row: bool


def attach(adapter: TuckaAdapter, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings) -> None:
    """Puts a TuckA adapter into a graph."""
    calls = Calls.of(sites.get(adapter.router), editor.model.graph)
    if settings.mode == "conditioned":
        routes = _tables(editor, settings.routes, adapter.experts)
    elif not sites:
        return
    elif settings.route == "given":
        routes = [_given(editor, adapter, settings)]
    else:
        routes = _routers(editor, adapter, calls, settings)
    for name, site in sites.items():
        for own in (site, *site.also):
            route = routes[calls.serving(own)]
            place = editor.place(site, own, per_row=route.per_row)
            on_input = _narrower_input(place)
            delta = Delta(ops.TuckerDelta, route.values, _factors(editor, adapter, name, place, on_input))
            editor.adapt(place, delta, on_input=on_input)


def _narrower_input(place: Site) -> bool:
    """Whether updating x costs less than updating y."""
    alone = not place.packed and not isinstance(place, SharedSite)
    return alone and place.out_features > place.in_features


def _factors(editor: GraphEditor, adapter: TuckaAdapter, name: str, site: Site, on_input: bool) -> tuple[ir.Value, ...]:
    factors = normalized(adapter.modules[name])
    weight = np.eye(site.in_features) if on_input else site.weight_array().astype(np.float64)
    projected = adapter.alpha * (weight @ factors.u).T
    return (
        editor.constant(f"{name}.tucka_u", factors.u),
        editor.constant(f"{name}.tucka_g", factors.g),
        editor.constant(f"{name}.tucka_c", factors.c),
        editor.constant(f"{name}.tucka_p", projected),
    )


def _tables(editor: GraphEditor, tasks: Sequence[Frozen], experts: int) -> list[_Routed]:
    """Of every call the frozen routes of all tasks; the row past the last task has weight zero."""
    task_id = editor.task_id()
    tables = []
    for call, routes in enumerate(zip(*tasks, strict=True)):
        name = f"tucka.call_{call}" if call else "tucka"
        groups = np.array([*(route.group for route in routes), 0], dtype=np.int64)
        weights = np.array([*(route.weights for route in routes), (0.0,) * experts])
        group = editor.gather(editor.constant(f"{name}.task_group", groups), task_id)
        tables.append(_Routed((group, editor.gather(editor.constant(f"{name}.task_weights", weights), task_id)), True))
    return tables


def _routers(editor: GraphEditor, adapter: TuckaAdapter, calls: Calls, settings: GraphSettings) -> list[_Routed]:
    """The router itself, once for every call."""
    calls.check(adapter.router)
    if settings.routing == "prompt" and len(calls.inputs) > 1:
        raise NotSupportedError(
            f"the router {adapter.router} is called {len(calls.inputs)} times by this base, and a prompt keeps one "
            "route: use --routing row or --routing batch"
        )
    per_row = settings.routing != "batch"
    routes = [
        _Routed(_router(editor, adapter, x, per_row and not fixed), per_row and not fixed)
        for x, fixed in zip(calls.inputs, calls.constant, strict=True)
    ]
    if settings.route == "shared":
        group, weights = routes[-1].values
        rows = editor.batch_dim if routes[-1].per_row else 1
        editor.add_output(ROUTE_GROUP, group, ir.DataType.INT64, rows=rows)
        editor.add_output(ROUTE_WEIGHTS, weights, ir.DataType.FLOAT, adapter.experts, rows=rows)
    elif settings.routing == "prompt":
        return [_Routed(_kept(editor, *routes[0].values, adapter.experts), True)]
    return routes


def _router(editor: GraphEditor, adapter: TuckaAdapter, x: ir.Value, per_row: bool) -> tuple[ir.Value, ir.Value]:
    """One call: of every row over its unpadded positions, or of everything."""
    mask = editor.counted_positions(x, per_row=per_row)
    x = editor.float32(x)
    if x.shape is not None and len(x.shape) == 2 and editor.has_rows(x) and per_row:
        x = editor.node("Unsqueeze", [x, editor.constant("positions.axis", np.array([1]))])[0]
    centroids = editor.constant(f"{adapter.router}.tucka_ec", adapter.centroids, exact=True)
    group, weights = editor.call(ops.TuckerRouter, [x, mask, centroids], groups=adapter.groups)
    return group, weights


def _given(editor: GraphEditor, adapter: TuckaAdapter, settings: GraphSettings) -> _Routed:
    """The route that the graph before this one has computed: one for the batch, or one per row."""
    per_row = settings.routing != "batch"
    rows = editor.batch_dim if per_row else 1
    group = editor.add_input(ROUTE_GROUP, ir.DataType.INT64, rows=rows)
    return _Routed((group, editor.add_input(ROUTE_WEIGHTS, ir.DataType.FLOAT, adapter.experts, rows=rows)), per_row)


def _kept(editor: GraphEditor, group: ir.Value, weights: ir.Value, experts: int) -> tuple[ir.Value, ir.Value]:
    """The route that the caller gives, and the live one for rows whose group is -1; either way it is an output.

    Whoever generates feeds -1 with the prompt, and what was used then with every token after it.
    """
    given = editor.add_input(ROUTE_GROUP, ir.DataType.INT64)
    given_weights = editor.add_input(ROUTE_WEIGHTS, ir.DataType.FLOAT, experts)
    live = editor.node("Less", [given, editor.constant("route.zero", np.array(0))])[0]
    column = editor.node("Unsqueeze", [live, editor.constant("route.axis", np.array([1]))])[0]
    used = editor.node("Where", [live, group, given])[0], editor.node("Where", [column, weights, given_weights])[0]
    editor.add_output(f"{ROUTE_GROUP}{USED}", used[0], ir.DataType.INT64)
    editor.add_output(f"{ROUTE_WEIGHTS}{USED}", used[1], ir.DataType.FLOAT, experts)
    return used
