"""Shift as standard nodes: each row's vector is gathered by its task and added to the module's output."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eptx.errors import NotSupportedError
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.graph.shared_input import SharedSite
from eptx.exporter.methods.shift.adapter import ShiftAdapter


def attach(adapter: ShiftAdapter, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings) -> None:
    """Puts an shift adapter into a graph.

    Raises:
        NotSupportedError: a module reads something that all rows share.
    """
    axis, rest = (editor.constant(f"shift.{n}", np.array([i])) for n, i in (("axis", 1), ("rest", -1)))
    for name, site in sites.items():
        for place in editor.places(site):
            if isinstance(place, SharedSite):
                raise NotSupportedError(f"{name} reads what all rows share; Shift does not support that")
            y = place.y
            start, stop = place.columns
            table = np.zeros((len(adapter.tasks) + 1, place.packed_width))  # the last row is `base`: none
            table[:-1, start:stop] = adapter.vectors[name]
            vectors = editor.gather(editor.constant(f"{name}.shift_v.{start}", table), editor.task_id())
            uses = list(y.uses())
            width = editor.node("Shape", [y], start=-1)[0]
            rows = editor.node("Concat", [editor.node("Shape", [editor.task_id()])[0], rest, width], axis=0)[0]
            cast = editor.node("CastLike", [editor.node("Unsqueeze", [vectors, axis])[0], y])[0]
            added = editor.node("Add", [editor.node("Reshape", [y, rows])[0], cast])[0]
            new = editor.node("Reshape", [added, editor.node("Shape", [y])[0]])[0]
            editor.adapted.setdefault(name, new)
            editor.replace(y, new, uses)
