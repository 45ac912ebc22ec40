"""TuckA with a frozen route: what it is at every call of the router, also where it is no choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from eptx.errors import NotSupportedError, UsageError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.route import Frozen, Route
from eptx.exporter.bases.products.site import behind_all
from eptx.exporter.graph.edited import EditedGraph
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from eptx.exporter.methods.tucka.calls import Calls
from eptx.exporter.methods.tucka.fold import route_of
from eptx.exporter.options import ExportOptions
from eptx.exporter.plan import routes_by_task


@dataclass(frozen=True)
class FrozenRoutes:
    """The routes of an export that freezes them.

    Attributes:
        given: by task id, the route of every call that routes by the data.
        constant: call of the router -> the route that it has whatever the data is.
    """

    given: Sequence[Frozen]
    constant: dict[int, Route]

    @property
    def calls(self) -> int:
        """How often the router is called."""
        return len(self.tasks[0])

    @property
    def tasks(self) -> list[Frozen]:
        """By task id, the route of every call."""
        return [self._all(frozen) for frozen in self.given]

    def _all(self, frozen: Frozen) -> Frozen:
        own = iter(frozen)
        return tuple(self.constant.get(call) or next(own) for call in range(len(frozen) + len(self.constant)))


def freeze(adapter: Adapter, parts: Sequence[EditedGraph], options: ExportOptions) -> FrozenRoutes | None:
    """The routes of a static or conditioned TuckA export; None for others.

    Args:
        adapter: the adapter.
        parts: the base's graphs, before they are edited.
        options: of the export.

    Raises:
        UsageError: a task has more or fewer routes than the router has calls that route by the data.
        NotSupportedError: a constant route cannot be computed.
    """
    if not isinstance(adapter, TuckaAdapter) or options.mode == "dynamic":
        return None
    given = routes_by_task(adapter, options)
    part = next(part for part in parts if adapter.router in part.sites)
    calls = Calls.of(part.sites[adapter.router], part.graph.model.graph)
    calls.check(adapter.router)
    for task, frozen in zip(adapter.tasks, given, strict=True):
        if len(frozen) != calls.free:
            raise UsageError(
                f"this base calls the router {adapter.router} {_times(calls.free)} on the data: "
                f"--route of task {task!r} needs {_routes(calls.free)}, and has {len(frozen)}"
            )
    constant = {
        call: route_of(adapter, _value(part, x))
        for call, (x, fixed) in enumerate(zip(calls.inputs, calls.constant, strict=True))
        if fixed
    }
    return FrozenRoutes(given, constant)


def _value(part: EditedGraph, x: ir.Value) -> np.ndarray:
    """A value of a graph that depends on none of its inputs."""
    import onnxruntime as ort

    behind = behind_all([x])
    if any(place.y in behind for site in part.sites.values() for place in (site, *site.also)):
        raise NotSupportedError("the router reads what other adapted modules make of constants: use --mode dynamic")
    if x.const_value is not None:
        return x.const_value.numpy()
    assert x.name is not None
    graph = ir.convenience.extract(part.graph.model.graph, [], [x])
    model = ir.Model(graph, ir_version=part.graph.model.ir_version)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    value: np.ndarray = session.run(None, {})[0]
    return value


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _routes(count: int) -> str:
    return "one route" if count == 1 else f"{count} routes, joined by /"
