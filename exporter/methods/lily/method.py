"""Lily as a method of eptx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from eptx.bundle import Manifest
from eptx.errors import NotSupportedError, UsageError
from eptx.exporter.adapters.routing.route import FrozenRoutes
from eptx.exporter.graph.edited import EditedGraph
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.methods.lily.attach import attach_router
from eptx.exporter.methods.lily.read import matches, read
from eptx.exporter.methods.routed import RoutedAdapter, RoutedUpdates
from eptx.exporter.options import ExportOptions


class Lily(RoutedUpdates):
    """Low-Rank Interconnected Adaptation across Layers."""

    name: ClassVar[str] = "lily"
    title: ClassVar[str] = "Lily"
    tensor_part: ClassVar[str] = ".lily_"
    flags: ClassVar[frozenset[str]] = frozenset({"--route", "--routing"})
    matches = staticmethod(matches)
    read = staticmethod(read)
    attach_router = staticmethod(attach_router)

    def reads_padding(self, options: ExportOptions) -> bool:
        """PEFT's routers take the mean over the batch, padding and all."""
        return options.mode == "dynamic" and options.routing == "batch"

    def settings(
        self,
        adapter: RoutedAdapter,
        edited: EditedGraph,
        graphs: Sequence[EditedGraph],
        options: ExportOptions,
        routes: FrozenRoutes | None,
    ) -> GraphSettings:
        if options.routing == "prompt":
            raise UsageError("--routing prompt is for methods with one router; every module of Lily has one: use row")
        if options.routing == "row" and len(graphs) > 1:
            raise NotSupportedError(
                "--routing row: modules of a decoder that reads an encoder see positions of either, and Lily's routers "
                "are in all of them: use --routing batch"
            )
        return super().settings(adapter, edited, graphs, options, routes)

    def notes(self, manifest: Manifest) -> list[str]:
        return [_ROUTINGS[manifest.routing]] if manifest.routing is not None else super().notes(manifest)


METHOD = Lily()

_ROUTINGS = {
    "batch": "Routing `batch`: routers take the mean over the batch, so a row's result depends on its neighbours.",
    "row": "Routing `row`: routers take the mean over each row, whatever else is in the batch.",
}
