"""TuckA as operators: one route for the model (a folded table, or the router itself), a TuckerDelta per module.

The released update is one of the input, x' = x + alpha ((x u) M) u^T; moved past W it is one of the output. Either is
the same operator with another last factor, and the narrower side is the cheaper one: a feed-forward layer's first
product, four times as wide as its input, gets its input updated. Elsewhere x stays what it is, so that modules which
read one x still share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from eptx._manifest import ROUTE_GROUP, ROUTE_WEIGHTS, USED
from eptx.errors import NotSupportedError
from eptx.exporter import ops
from eptx.exporter._delta import Delta
from eptx.exporter._shared import SharedSite
from eptx.exporter.attach import AttachPlan, Editor
from eptx.exporter.base.site import Site
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from eptx.exporter.methods.tucka.fold import normalised
from eptx.exporter.route import Route


def attach(adapter: TuckaAdapter, editor: Editor, sites: Mapping[str, Site], plan: AttachPlan) -> None:
    """Puts a TuckA adapter into a graph."""
    if plan.mode == "conditioned":
        route = _table(editor, plan.routes, adapter.experts)
    elif not sites:
        return
    elif plan.route == "given":
        route = _given(editor, adapter, plan)
    else:
        route = _router(editor, adapter, sites[adapter.router], plan)
    per_row = plan.routing != "batch" or plan.mode == "conditioned"
    for name, site in sites.items():
        for place in editor.places(site, per_row=per_row):
            on_input = _narrower_input(place)
            delta = Delta(ops.TuckerDelta, route, _factors(editor, adapter, name, place, on_input))
            editor.adapt(place, delta, on_input=on_input)


def _narrower_input(place: Site) -> bool:
    """Whether updating x costs less than updating y."""
    alone = not place.packed and not isinstance(place, SharedSite)
    return alone and place.out_features > place.in_features


def _factors(editor: Editor, adapter: TuckaAdapter, name: str, site: Site, on_input: bool) -> tuple[ir.Value, ...]:
    factors = normalised(adapter.modules[name])
    weight = np.eye(site.in_features) if on_input else site.weight_array().astype(np.float64)
    projected = adapter.alpha * (weight @ factors.u).T
    return (
        editor.constant(f"{name}.tucka_u", factors.u),
        editor.constant(f"{name}.tucka_g", factors.g),
        editor.constant(f"{name}.tucka_c", factors.c),
        editor.constant(f"{name}.tucka_p", projected),
    )


def _table(editor: Editor, routes: Sequence[Route], experts: int) -> tuple[ir.Value, ir.Value]:
    """The frozen routes of all tasks; the row past the last task has weight zero."""
    groups = np.array([*(route.group for route in routes), 0], dtype=np.int64)
    weights = np.array([*(route.weights for route in routes), (0.0,) * experts])
    task_id = editor.task_id()
    return (
        editor.gather(editor.constant("tucka.task_group", groups), task_id),
        editor.gather(editor.constant("tucka.task_weights", weights), task_id),
    )


def _router(editor: Editor, adapter: TuckaAdapter, site: Site, plan: AttachPlan) -> tuple[ir.Value, ir.Value]:
    if site.fixed_input:
        raise NotSupportedError(f"the router {adapter.router} reads none of the model's inputs: its route says nothing")
    per_row = plan.routing != "batch"
    x = editor.float32(site.x)
    mask = editor.attention_mask() if per_row else None
    group, weights = editor.call(
        ops.TuckerRouter,
        [
            x,
            mask if mask is not None else _everything(editor, x, rows=per_row),
            editor.constant(f"{adapter.router}.tucka_ec", adapter.centroids),
        ],
        groups=adapter.groups,
    )
    if plan.route == "shared":
        rows = editor.batch_dim if per_row else 1
        editor.add_output(ROUTE_GROUP, group, ir.DataType.INT64, rows=rows)
        editor.add_output(ROUTE_WEIGHTS, weights, ir.DataType.FLOAT, adapter.experts, rows=rows)
    elif plan.routing == "prompt":
        return _kept(editor, group, weights, adapter.experts)
    return group, weights


def _given(editor: Editor, adapter: TuckaAdapter, plan: AttachPlan) -> tuple[ir.Value, ir.Value]:
    """The route that the graph before this one has computed: one for the batch, or one per row."""
    rows = 1 if plan.routing == "batch" else editor.batch_dim
    return (
        editor.add_input(ROUTE_GROUP, ir.DataType.INT64, rows=rows),
        editor.add_input(ROUTE_WEIGHTS, ir.DataType.FLOAT, adapter.experts, rows=rows),
    )


def _kept(editor: Editor, group: ir.Value, weights: ir.Value, experts: int) -> tuple[ir.Value, ir.Value]:
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


def _everything(editor: Editor, x: ir.Value, *, rows: bool) -> ir.Value:
    """A mask of ones over all positions of x [N, L, in]: [N, L] for a route per row, [1, N * L] for the batch's."""
    positions = editor.node("Shape", [x], start=0, end=-1)[0]
    ones = editor.node("Expand", [editor.constant("tucka.one", np.ones(1)), positions])[0]
    if rows:
        return ones
    return editor.node("Reshape", [ones, editor.constant("tucka.one_row", np.array([1, -1]))])[0]
