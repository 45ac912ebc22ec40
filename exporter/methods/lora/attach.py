"""LoRA as operators: the pairs of all tasks in one bank per module, and a LowRankDelta that picks per row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from eptx.errors import NotSupportedError
from eptx.exporter import ops
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.delta import Delta
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.graph.tables import Entries
from eptx.exporter.methods.lora.adapter import A, B, LoraAdapter


def attach(adapter: LoraAdapter, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings) -> None:
    """Puts LoRA adapters into a graph.

    Raises:
        NotSupportedError: a DoRA adapter, whose norms are of one task's weight.
    """
    for task, modules in adapter.by_task.items():
        if any(module.magnitude is not None for module in modules.values()):
            raise NotSupportedError(f"task {task!r} is a DoRA adapter, which is supported in static mode only")
    for name, site in sites.items():
        own = tuple(editor.task_table(name, part, axis, entries) for part, axis, entries in tables(adapter, name))
        for place in editor.places(site):
            editor.adapt(place, Delta(ops.LowRankDelta, (editor.task_id(),), own))


def tables(adapter: LoraAdapter, module: str) -> Iterator[tuple[str, int, Entries]]:
    """A module's tables [T, in, R] and [T, R, out], R the largest rank, by the factors' names.

    Yields:
        the name, the axis of the rank in a task's entry, and the entries, [in, r] and [r, out] with the scale in it.
    """
    factors = [adapter.by_task[task].get(module) for task in adapter.tasks]
    yield A, 1, [None if f is None else f.a.T for f in factors]
    yield B, 0, [None if f is None else f.scale * f.b.astype(np.float64).T for f in factors]
