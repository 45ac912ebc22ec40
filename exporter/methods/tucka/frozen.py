"""A frozen route: what it is at every call of the router, also where it is no choice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from eptx.errors import NotSupportedError, UsageError
from eptx.exporter.adapters.routing.route import Frozen, FrozenRoutes
from eptx.exporter.adapters.routing.routers import Router
from eptx.exporter.bases.products.site import behind_all
from eptx.exporter.graph.edited import EditedGraph
from eptx.exporter.methods import frozen
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from eptx.exporter.methods.tucka.calls import Calls
from eptx.exporter.methods.tucka.fold import route_of
from eptx.exporter.options import ExportOptions
from eptx.runtime.ort.sessions import open_session, session_options

_NEEDS = (
    "TuckA's route depends on the data; freezing it for task {task} needs --route GROUP:W1,W2,... "
    "or --calibration-data FILE.jsonl"
)


def routes_by_task(adapter: TuckaAdapter, options: ExportOptions) -> list[Frozen]:
    """The frozen routes of every task; see `eptx.exporter.methods.frozen.routes_by_task`."""
    return frozen.routes_by_task(adapter, options, Router(adapter.router, adapter.groups, adapter.experts), _NEEDS)


def freeze(adapter: TuckaAdapter, graphs: Sequence[EditedGraph], options: ExportOptions) -> FrozenRoutes | None:
    """The routes of a static or conditioned export; None for a dynamic one.

    Args:
        adapter: the adapter.
        graphs: the base's graphs, before they are edited.
        options: of the export.

    Raises:
        UsageError: a task has more or fewer routes than the router has calls that route by the data.
        NotSupportedError: a constant route cannot be computed.
    """
    if options.mode == "dynamic":
        return None
    given = routes_by_task(adapter, options)
    edited = next(edited for edited in graphs if adapter.router in edited.sites)
    calls = Calls.of(edited.sites[adapter.router], edited.graph.model.graph)
    calls.check(adapter.router)
    for task, own in zip(adapter.tasks, given, strict=True):
        if len(own) != calls.free:
            raise UsageError(
                f"this base calls the router {adapter.router} {_times(calls.free)} on the data: "
                f"--route of task {task!r} needs {_routes(calls.free)}, and has {len(own)}"
            )
    constant = {
        call: route_of(adapter, _value(edited, x))
        for call, (x, fixed) in enumerate(zip(calls.inputs, calls.constant, strict=True))
        if fixed
    }
    return FrozenRoutes(given, constant)


def _value(edited: EditedGraph, x: ir.Value) -> np.ndarray:
    """A value of a graph that depends on none of its inputs."""
    behind = behind_all([x])
    if any(place.y in behind for site in edited.sites.values() for place in (site, *site.also)):
        raise NotSupportedError("the router reads what other adapted modules make of constants: use --mode dynamic")
    if x.const_value is not None:
        return x.const_value.numpy()
    assert x.name is not None
    graph = ir.convenience.extract(edited.graph.model.graph, [], [x])
    model = ir.Model(graph, ir_version=edited.graph.model.ir_version)
    session = open_session(ir.to_proto(model).SerializeToString(), session_options(optimization="none"))
    value: np.ndarray = session.run(None, {})[0]
    return value


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _routes(count: int) -> str:
    return "one route" if count == 1 else f"{count} routes, joined by /"
