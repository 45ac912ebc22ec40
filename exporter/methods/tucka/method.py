"""TuckA as a method of eptx."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from eptx.bundle import Manifest
from eptx.errors import NotSupportedError, UsageError
from eptx.exporter.adapters.routing.route import FrozenRoutes, Route
from eptx.exporter.adapters.routing.routers import Router
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.edited import EditedGraph
from eptx.exporter.graph.settings import GraphSettings, RoutePlace
from eptx.exporter.methods.frozen import frozen_fields
from eptx.exporter.methods.method import Method, RouteFields
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from eptx.exporter.methods.tucka.attach import attach
from eptx.exporter.methods.tucka.calls import Calls
from eptx.exporter.methods.tucka.fold import fold
from eptx.exporter.methods.tucka.frozen import freeze, routes_by_task
from eptx.exporter.methods.tucka.read import matches, read
from eptx.exporter.options import ExportOptions, Mode


class Tucka(Method):
    """Tucker Adaptation."""

    name: ClassVar[str] = "tucka"
    title: ClassVar[str] = "TuckA"
    tensor_part: ClassVar[str] = ".tucka_"
    modes: ClassVar[tuple[Mode, ...]] = ("static", "conditioned", "dynamic")
    flags: ClassVar[frozenset[str]] = frozenset({"--route", "--routing"})
    matches = staticmethod(matches)
    read = staticmethod(read)
    fold = staticmethod(fold)
    attach = staticmethod(attach)
    freeze = staticmethod(freeze)

    def router(self, adapter: TuckaAdapter) -> Router:
        return Router(adapter.router, adapter.groups, adapter.experts)

    def check(self, adapter: TuckaAdapter, options: ExportOptions) -> None:
        if options.mode != "dynamic":
            routes_by_task(adapter, options)

    def serves_base(self, options: ExportOptions) -> bool:
        """Not where the router is in the graph: its route is that of all rows, or of a row whatever its task."""
        return options.mode == "conditioned"

    def reads_padding(self, options: ExportOptions) -> bool:
        """The released router takes the mean over the batch, padding and all."""
        return options.mode == "dynamic" and options.routing == "batch"

    def choice(self, adapter: TuckaAdapter, task: int, options: ExportOptions) -> Route:
        return routes_by_task(adapter, options)[task][0]

    def fold_graph(self, adapter: TuckaAdapter, edited: EditedGraph, task: int, routes: FrozenRoutes | None) -> None:
        """Where the base calls the router several times, products of one module may take different routes."""
        assert routes is not None
        calls = Calls.of(edited.sites.get(adapter.router), edited.graph.model.graph)
        for name, site in edited.sites.items():
            weight = site.weight_array().astype("float64")
            by_route: dict[Route, list[Site]] = {}
            for place in (site, *site.also):
                by_route.setdefault(routes.tasks[task][calls.serving(place)], []).append(place)
            for route, (first, *others) in by_route.items():
                replace(first, also=tuple(others)).set_weight(fold(adapter, name, weight, route))

    def settings(
        self,
        adapter: TuckaAdapter,
        edited: EditedGraph,
        graphs: Sequence[EditedGraph],
        options: ExportOptions,
        routes: FrozenRoutes | None,
    ) -> GraphSettings:
        if options.routing == "prompt" and edited.graph.generation is None:
            raise UsageError("--routing prompt is for models that generate text; use batch or row")
        frozen = routes.tasks if routes is not None else ()
        return GraphSettings(options.mode, options.routing, frozen, _route_place(adapter, edited, graphs))

    def route_fields(self, adapter: TuckaAdapter, options: ExportOptions, routes: FrozenRoutes | None) -> RouteFields:
        if routes is None:
            return RouteFields(routing=options.routing)
        return frozen_fields(adapter.tasks, routes, options)

    def notes(self, manifest: Manifest) -> list[str]:
        if manifest.routing is not None:
            return [_ROUTINGS[manifest.routing]]
        assert manifest.route is not None
        notes = ["TuckA's route is frozen: `route` in `eptx.json` has that of every task, whatever the data is."]
        if manifest.route["constant"]:
            calls = ", ".join(str(frozen["call"] + 1) for frozen in manifest.route["constant"])
            notes.append(f"The router's call {calls} reads no data: it keeps its own route, which is a constant.")
        return notes


METHOD = Tucka()

_ROUTINGS = {
    "batch": "Routing `batch`: one route for the whole batch, so a row's result depends on its neighbours.",
    "prompt": "Routing `prompt`: every row keeps the route of its prompt while its answer is generated.",
    "row": "Routing `row`: every row has its own route, whatever else is in the batch.",
}


def _route_place(adapter: TuckaAdapter, edited: EditedGraph, graphs: Sequence[EditedGraph]) -> RoutePlace:
    """Where a graph has the route from.

    Raises:
        NotSupportedError: from a graph that runs after it.
    """
    if len(graphs) == 1:
        return "own"
    routing = next(i for i, other in enumerate(graphs) if adapter.router in other.sites)
    if any(other.sites for other in graphs[:routing]):
        raise NotSupportedError(
            f"the router {adapter.router} runs after modules that it routes: no graph computes that"
        )
    if edited is graphs[routing]:
        return "shared" if edited is not graphs[-1] else "own"
    return "given"
