"""The tasks' updates of a linear layer in a graph: in banks of which each row reads its task's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from eptx.exporter import ops
from eptx.exporter.adapters.updates import FACTORS, VECTORS, LinearUpdate, TaskTable, sizes
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.by_row import Vectors
from eptx.exporter.graph.delta import Delta
from eptx.exporter.graph.editor import GraphEditor

Updates = Sequence[LinearUpdate | None]


def attach_updates(editor: GraphEditor, site: Site, updates: Updates, names: tuple[str, str]) -> None:
    """Puts the updates of one module into a graph, for `editor.wire` to connect.

    Args:
        editor: of the graph.
        site: where the module is.
        updates: by task id; None for a task that leaves the module as it is.
        names: of the two banks of factors, behind the module's name.

    Raises:
        NotSupportedError: the graph cannot compute it.
    """
    own = None
    if (factors := _factors(updates)) is not None:
        own = tuple(editor.constant(f"{site.module}.{n}", bank) for n, bank in zip(names, factors, strict=True))
        ranks = sizes(_all(updates, "a"), 0)
        for value, part, axis in zip(own, FACTORS, (1, 0), strict=True):
            editor.declare(value, TaskTable(site.module, part, axis, ranks))
    vectors = Vectors(
        gain=_rows(updates, lambda update: update.gain, 1.0),
        input_gain=_rows(updates, lambda update: update.input_gain, 1.0),
        shift=_rows(updates, lambda update: update.shift, 0.0),
        sizes={part: sizes(_all(updates, part), 0) for part in VECTORS},
    )
    for place in editor.places(site):
        if own is not None:
            editor.adapt(place, Delta(ops.LowRankDelta, (editor.task_id(),), own))
        editor.multiply(place, vectors)


def _all(updates: Updates, part: str) -> list[np.ndarray | None]:
    return [None if update is None else getattr(update, part) for update in updates]


def _factors(updates: Updates) -> tuple[np.ndarray, np.ndarray] | None:
    """All tasks' factors as [T, in, R] and [T, R, out], R the largest rank; None if no task has any."""
    pairs = {index: (u.a, u.b) for index, u in enumerate(updates) if u is not None and u.a is not None}
    if not pairs:
        return None
    rank = max(len(a) for a, _ in pairs.values())
    first_a, first_b = next(iter(pairs.values()))
    assert first_b is not None
    down = np.zeros((len(updates), first_a.shape[1], rank))
    up = np.zeros((len(updates), rank, len(first_b)))
    for index, (a, b) in pairs.items():
        assert b is not None
        down[index, :, : len(a)] = a.T
        up[index, : len(a)] = b.T
    return down, up


def _rows(updates: Updates, of: Callable[[LinearUpdate], np.ndarray | None], neutral: float) -> np.ndarray | None:
    """The tasks' vectors, and a last one that changes nothing, [T + 1, width]; None if no task has one."""
    found = {index: of(update) for index, update in enumerate(updates) if update is not None}
    own = {index: vector for index, vector in found.items() if vector is not None}
    if not own:
        return None
    rows = np.full((len(updates) + 1, len(next(iter(own.values())))), neutral)
    for index, vector in own.items():
        rows[index] = vector
    return rows
