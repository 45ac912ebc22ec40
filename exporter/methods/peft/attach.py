"""The updates of all tasks in a graph, of which each row takes its task's."""

from __future__ import annotations

from collections.abc import Mapping

from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.graph.updates import attach_updates
from eptx.exporter.methods.peft.adapter import PeftAdapter


def attach(adapter: PeftAdapter, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings) -> None:
    """Puts the adapters into a graph; `Peft.check` has refused updates that have no factors."""
    for name, site in sites.items():
        updates = [adapter.by_task[task].get(name) for task in adapter.tasks]
        small = [update for update in updates if update is None or isinstance(update, LinearUpdate)]
        attach_updates(editor, site, small, ("update_A", "update_B"))
