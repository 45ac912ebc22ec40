"""Methods whose modules, or feed-forwards, have a router each, which weighs the experts by the data.

Dynamic, the routers are in the graph. Else data has shown how much each expert counts for each task on average. Where
experts are low-rank updates, a task's update is a constant then, which a weight can hold: static, and conditioned.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from eptx.bundle import Manifest
from eptx.errors import AdapterError, UsageError
from eptx.exporter.adapters.adapter import Adapter, Widths, natural_key
from eptx.exporter.adapters.checkpoint import AGAIN, WEIGHTS, Checkpoint, ReadOptions, group_by_module
from eptx.exporter.adapters.routing.route import Frozen, FrozenRoutes
from eptx.exporter.adapters.routing.routers import Router
from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.edited import EditedGraph
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.graph.updates import attach_updates
from eptx.exporter.methods.frozen import frozen_fields, routes_by_task
from eptx.exporter.methods.method import Method, RouteFields
from eptx.exporter.methods.one_folder import common_fields, only, tasks_by_heads
from eptx.exporter.options import ExportOptions, Mode


class RoutedModule(Protocol):
    """What the file holds of one linear layer."""

    @property
    def in_features(self) -> int: ...

    @property
    def out_features(self) -> int: ...

    @property
    def experts(self) -> int:
        """How many experts the layer has."""
        ...

    def update(self, weights: Sequence[float]) -> LinearUpdate:
        """The update, float64, with these weights of the experts whatever the data is."""
        ...

    def arrays(self) -> tuple[np.ndarray, ...]:
        """All that the file holds of the layer."""
        ...

    def facts(self) -> Mapping[str, int]:
        """What ``eptx inspect`` shows of the layer, besides its name."""
        ...


@dataclass(frozen=True, kw_only=True)
class RoutedAdapter(Adapter):
    """An adapter whose modules route for themselves.

    Attributes:
        modules: linear layer -> what the file holds of it, in module order.
    """

    modules: Mapping[str, RoutedModule]

    @property
    def module_names(self) -> tuple[str, ...]:
        return tuple(self.modules)

    @property
    def experts(self) -> int:
        """How many experts every module has."""
        return next(iter(self.modules.values())).experts

    def widths(self, module: str) -> Widths:
        own = self.modules[module]
        return Widths(own.in_features, range(own.out_features, own.out_features + 1))

    def parameters(self) -> int:
        return sum(array.size for module in self.modules.values() for array in module.arrays())

    def describe(self) -> dict[str, Any]:
        return {"modules": [{"name": name, **module.facts()} for name, module in self.modules.items()]}


_Own = TypeVar("_Own", bound=RoutedAdapter)
#: From a module's name, its tensors and the configuration to what they hold.
Read = Callable[[str, dict[str, np.ndarray], Mapping[str, Any]], RoutedModule]


def read_routed(
    own: type[_Own],
    title: str,
    checkpoints: Sequence[Checkpoint],
    options: ReadOptions,
    marker: str,
    module: Read,
    **more: Any,
) -> _Own:
    """The adapter of one folder; its tasks are those of `tasks_by_heads`.

    Args:
        own: its class.
        title: of the method, for messages.
        checkpoints: the folder.
        options: what the user says.
        marker: how the names of its tensors go on after the module's name and a dot.
        module: reads one module.
        more: further fields of the class.

    Raises:
        AdapterError: tensors are missing, or do not fit each other.
        UsageError: several folders were given.
    """
    checkpoint = only(title, checkpoints)
    grouped = group_by_module(checkpoint.tensors, marker)
    modules = {name: module(name, grouped[name], checkpoint.config) for name in sorted(grouped, key=natural_key)}
    counts = sorted({each.experts for each in modules.values()})
    if len(counts) != 1:
        problem = f"modules disagree on the number of experts: {counts}" if counts else f"holds no factors of {title}"
        raise AdapterError(f"{WEIGHTS}: {problem}: {AGAIN}")
    return own(**common_fields(checkpoint, tasks_by_heads(checkpoint, options)), modules=modules, **more)


class Routed(Method):
    """A method whose routers are several.

    Attributes:
        has_router: what has a router each, as messages call it.
    """

    flags: ClassVar[frozenset[str]] = frozenset({"--route"})
    has_router: ClassVar[str] = "module"

    def router(self, adapter: Any) -> Router:
        return Router(None, 1, adapter.experts)

    def routed(self, adapter: Any) -> tuple[str, ...]:
        """A module of each router, in the order of their routes."""
        return tuple(adapter.module_names)

    def check(self, adapter: Any, options: ExportOptions) -> None:
        if options.mode != "dynamic":
            self.routes(adapter, options)

    def serves_base(self, options: ExportOptions) -> bool:
        """Not where the routers are in the graph: they know no task, and so none without an adapter."""
        return options.mode == "conditioned"

    def freeze(self, adapter: Any, graphs: Sequence[EditedGraph], options: ExportOptions, /) -> FrozenRoutes | None:
        if options.mode == "dynamic":
            return None
        return FrozenRoutes(self.routes(adapter, options), modules=self.routed(adapter))

    def settings(
        self,
        adapter: Any,
        edited: EditedGraph,
        graphs: Sequence[EditedGraph],
        options: ExportOptions,
        routes: FrozenRoutes | None,
    ) -> GraphSettings:
        return GraphSettings(options.mode, options.routing, routes.tasks if routes is not None else ())

    def route_fields(self, adapter: Any, options: ExportOptions, routes: FrozenRoutes | None) -> RouteFields:
        if routes is None:
            return RouteFields(routing=options.routing if "--routing" in self.flags else None)
        return frozen_fields(adapter.tasks, routes, options)

    def notes(self, manifest: Manifest) -> list[str]:
        if manifest.route is None:
            return []
        return [
            f"{self.title} weighs its experts by the data; here every task has fixed weights: `route` in `eptx.json` "
            f"has those of each {self.has_router}."
        ]

    def routes(self, adapter: Any, options: ExportOptions) -> list[Frozen]:
        """The frozen routes of every task, by id.

        Raises:
            UsageError: a task has none, or they do not fit the adapter.
        """
        count = len(self.routed(adapter))
        needs = (
            f"{self.title} weighs its experts by the data; fixed weights for task {{task}} need --calibration-data "
            "FILE.jsonl (or use --mode dynamic)"
        )
        routes = routes_by_task(adapter, options, self.router(adapter), needs)
        for task, own in zip(adapter.tasks, routes, strict=True):
            if len(own) != count:
                raise UsageError(
                    f"--route of task {task!r} has {len(own)} routes; the adapter has {count} {self.has_router}s, "
                    "each with its own: join as many by /, in their order, or give --calibration-data FILE.jsonl"
                )
        return routes


class RoutedUpdates(Routed):
    """A method whose `read` gives a `RoutedAdapter`."""

    modes: ClassVar[tuple[Mode, ...]] = ("static", "conditioned", "dynamic")

    @abstractmethod
    def attach_router(
        self, adapter: Any, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings, /
    ) -> None:
        """Puts the modules with their routers into a graph, for the mode "dynamic"."""

    def choice(self, adapter: RoutedAdapter, task: int, options: ExportOptions) -> Frozen:
        return self.routes(adapter, options)[task]

    def fold(self, adapter: RoutedAdapter, module: str, weight: np.ndarray, choice: Frozen, /) -> np.ndarray:
        return _frozen(adapter, module, choice).fold(weight)

    def fold_graph(self, adapter: RoutedAdapter, edited: EditedGraph, task: int, routes: FrozenRoutes | None) -> None:
        assert routes is not None
        for name, site in edited.sites.items():
            site.set_weight(self.fold(adapter, name, site.weight_array().astype(np.float64), routes.tasks[task]))

    def attach(
        self, adapter: RoutedAdapter, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings, /
    ) -> None:
        if settings.mode == "dynamic":
            self.attach_router(adapter, editor, sites, settings)
            return
        for name, site in sites.items():
            updates = [_frozen(adapter, name, routes) for routes in settings.routes]
            attach_updates(editor, site, updates, ("update_A", "update_B"))


def _frozen(adapter: RoutedAdapter, module: str, routes: Frozen) -> LinearUpdate:
    """A module's update with its own one of the routes."""
    return adapter.modules[module].update(routes[adapter.module_names.index(module)].weights)
