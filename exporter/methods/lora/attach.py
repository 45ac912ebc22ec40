"""LoRA as operators: the pairs of all tasks in one bank per module, and a LowRankDelta that picks per row."""

from __future__ import annotations

from collections.abc import Mapping

from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.graph.updates import attach_updates
from eptx.exporter.methods.lora.adapter import LoraAdapter


def attach(adapter: LoraAdapter, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings) -> None:
    """Puts LoRA adapters into a graph."""
    for name, site in sites.items():
        updates = [adapter.update(task, name, site.weight_array) for task in adapter.tasks]
        attach_updates(editor, site, updates, ("lora_A", "lora_B"))
