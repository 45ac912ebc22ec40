"""What a method gives an export, ``eptx inspect`` and a calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import onnx_ir as ir

from eptx.bundle import Manifest
from eptx.exporter.adapters.checkpoint import Checkpoint, OwnTensors, ReadOptions
from eptx.exporter.adapters.routing.route import FrozenRoutes
from eptx.exporter.adapters.routing.routers import ModuleExperts, Router
from eptx.exporter.adapters.trained_as import TrainedAs
from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.edited import EditedGraph
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.methods import modules
from eptx.exporter.methods.released import Conversion
from eptx.exporter.options import ExportOptions, Mode


@dataclass(frozen=True)
class RouteFields:
    """What a bundle's manifest says of routes; see `eptx.bundle.Manifest`."""

    routing: str | None = None
    route: Mapping[str, Any] | None = None


class TaskByTask(Protocol):
    """A method whose adapters of several tasks are nothing but those of each task, side by side."""

    def joined(self, adapters: Sequence[Any], /) -> Any:
        """One `Adapter` of those of several tasks of one base.

        Raises:
            AdapterError: they are of different bases.
        """
        ...

    def reads_base(self, adapter: Any, /) -> str | None:
        """A module whose update is computed from the base's weight; None for none."""
        ...

    def restored(
        self, task: str, updates: Mapping[str, LinearUpdate], fingerprint: str, trained_as: TrainedAs, /
    ) -> Any:
        """The `Adapter` of one task of a bundle, of its modules' updates."""
        ...


class Method(Protocol):
    """One adapter method. The defaults are those of a method without a router, whose rows are independent.

    `adapter` is always what `read` gave. `routes` is what `freeze` gave.

    Attributes:
        name: as commands call it, and manifests, unless its adapters have a `kind`.
        title: as its paper or library writes it, for messages.
        tensor_part: how the names of its tensors go on after the module's name. Other tensors are of modules that PEFT
            saved whole.
        telling: see `OwnTensors`.
        last_choice: whether its files are taken for it only if they match no other method.
        modes: those that exist; "dynamic" needs a router.
        task_by_task: how tasks are added to a conditioned bundle and removed, where the method can do that.
        conversions: how ``eptx convert`` rewrites what released codes save to what `read` reads.
        flags: the flags of ``eptx export`` that are for such methods only, of "--top-k", "--route", "--routing".
    """

    name: ClassVar[str]
    title: ClassVar[str]
    tensor_part: ClassVar[str]
    telling: ClassVar[tuple[str, ...]] = ()
    last_choice: ClassVar[bool] = False
    modes: ClassVar[tuple[Mode, ...]] = ("static", "conditioned")
    flags: ClassVar[frozenset[str]] = frozenset()
    task_by_task: ClassVar[TaskByTask | None] = None
    conversions: ClassVar[tuple[Conversion, ...]] = ()

    def is_called(self, name: str) -> bool:
        """Whether a manifest's ``method`` is this one."""
        return name == self.name

    def matches(self, config: Mapping[str, Any], tensors: Sequence[str], /) -> bool:
        """Whether a folder's configuration and names of tensors are of this method."""
        ...

    def own_tensors(self, config: Mapping[str, Any]) -> OwnTensors:
        """Which tensors of a folder with this configuration are the method's."""
        return OwnTensors((self.tensor_part,), telling=self.telling)

    def read(self, checkpoints: Sequence[Checkpoint], options: ReadOptions, /) -> Any:
        """The `Adapter` in one checkpoint folder, or in several that share a base."""
        ...

    def complete(self, adapter: Any, base: Path | None, class_name: str | None) -> Any:
        """The adapter with what only the base says of it; called before the graph is made.

        Args:
            adapter: what `read` gave.
            base: the base's transformers folder; None with an ONNX base alone.
            class_name: the class of transformers that was trained; None without a folder.
        """
        return adapter

    def fold(self, adapter: Any, module: str, weight: np.ndarray, choice: Any, /) -> np.ndarray:
        """A module's weight [out, in] float64 with one task in it, float64; see `choice`. For the mode "static"."""
        raise TypeError(f"{self.title} has no mode static")  # whose `modes` say so, and are looked at first

    def shift(self, adapter: Any, module: str, task: int, /) -> np.ndarray | None:
        """What one task, by its id, adds to the bias of a module, [out]; None for nothing. For the mode "static"."""
        return None

    def attach(self, adapter: Any, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings, /) -> None:
        """Puts operators for the modules of one graph into it."""
        ...

    def check(self, adapter: Any, options: ExportOptions) -> None:
        """Compares the options with the adapter, before any work is done.

        Raises:
            UsageError: something is missing, or does not fit.
        """
        return None

    def serves_base(self, options: ExportOptions) -> bool:
        """Whether single rows of a bundle may switch the adapter off."""
        return options.mode != "static"

    def reads_padding(self, options: ExportOptions) -> bool:
        """Whether an answer depends on the token that shorter rows of a batch are filled with."""
        return False

    def freeze(self, adapter: Any, graphs: Sequence[EditedGraph], options: ExportOptions, /) -> FrozenRoutes | None:
        """The frozen routes of an export, found before its graphs are edited; None for none."""
        return None

    def choice(self, adapter: Any, task: int, options: ExportOptions) -> Any:
        """What `fold` puts into a weight of a base's files: the id of a task, or its frozen route."""
        return task

    def fold_graph(self, adapter: Any, edited: EditedGraph, task: int, routes: FrozenRoutes | None) -> None:
        """Folds a task, by its id, into the weights of a graph."""
        for name, site in edited.sites.items():
            site.set_weight(self.fold(adapter, name, site.weight_array().astype(np.float64), task))

    def settings(
        self,
        adapter: Any,
        edited: EditedGraph,
        graphs: Sequence[EditedGraph],
        options: ExportOptions,
        routes: FrozenRoutes | None,
    ) -> GraphSettings:
        """How the adapter goes into one of the graphs of a base.

        Raises:
            NotSupportedError: no graph can compute it.
        """
        return GraphSettings(options.mode)

    def task_used(self, editor: GraphEditor) -> ir.Value | None:
        """The task of each row, int64 [batch], where the graph infers it; called when the operators are in."""
        return None

    def route_fields(self, adapter: Any, options: ExportOptions, routes: FrozenRoutes | None) -> RouteFields:
        """What the manifest says of routes."""
        return RouteFields()

    def notes(self, manifest: Manifest) -> list[str]:
        """Lines of the model card."""
        return []

    def router(self, adapter: Any) -> Router | None:
        """The router whose input decides the route of all modules; None for none."""
        return None

    def task_experts(self, adapter: Any) -> Mapping[str, ModuleExperts]:
        """Module -> the experts that it uses for each task; empty where tasks have no experts of their own."""
        return {}


def methods() -> list[Method]:
    """All methods, in the order in which they are asked whose files an adapter folder holds."""
    found: list[Method] = [module.METHOD for module in modules("method")]
    return sorted(found, key=lambda method: method.last_choice)


def conversions() -> list[Conversion]:
    """What ``eptx convert`` rewrites."""
    return [conversion for method in methods() for conversion in method.conversions]


def method_of(name: str) -> Method:
    """The method of that name, or of that kind."""
    return next(method for method in methods() if method.is_called(name))


def titles(flag: str) -> str:
    """The methods that a flag is for, as messages name them."""
    return " and ".join(method.title for method in methods() if flag in method.flags)
