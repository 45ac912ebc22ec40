"""Splits a batch into groups of rows that run separately, and merges their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from eptx.exporter.validation.reference.router_ties import undisputed
from eptx.runtime.validation.batch import ANSWER_IDS, Batch
from eptx.runtime.validation.expected import Whole
from eptx.runtime.validation.routers import Decisions

Values = dict[str, np.ndarray]


def rows_of(batch: Batch, rows: np.ndarray) -> Batch:
    """Some rows of a batch, padded as before."""
    if len(rows) == batch.rows:
        return batch
    return replace(
        batch,
        arrays={name: array[rows] for name, array in batch.arrays.items()},
        tasks=tuple(batch.tasks[row] for row in rows),
        labels=tuple(batch.labels[row] for row in rows) if batch.labels else (),
    )


def padding_of(batch: Batch) -> list[tuple[bytes, ...]]:
    """Each row's padding: rows with equal padding can run without it. Empty where the model itself handles padding."""
    if batch.prompt is None or ANSWER_IDS in batch.arrays or batch.kept is None:
        return [()] * batch.rows
    return [(row.tobytes(),) for row in batch.kept]


def kept_columns(batch: Batch) -> np.ndarray:
    """The columns that are not padding, of a generator's rows with equal padding."""
    if batch.prompt is None or ANSWER_IDS in batch.arrays or batch.kept is None:
        return np.arange(batch.length)
    return np.flatnonzero(batch.kept.any(axis=0))


def select_columns(batch: Batch, columns: np.ndarray) -> Batch:
    """A batch with some of its columns."""
    assert batch.prompt is not None
    arrays = {name: array[:, columns] for name, array in batch.arrays.items()}
    return replace(batch, arrays=arrays, prompt=int((columns < batch.prompt).sum()))


def scatter_columns(expected: Whole, batch: Batch, columns: np.ndarray) -> Whole:
    """The results of some columns at their place in the batch; zeros elsewhere, which are not compared."""

    def wide(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = {}
        for name, array in arrays.items():
            found[name] = array
            if array.ndim > 2 and array.shape[1] == len(columns):
                found[name] = np.zeros((len(array), batch.length, *array.shape[2:]), array.dtype)
                found[name][:, columns] = array
        return found

    return replace(
        expected,
        batch=batch,
        outputs=wide(expected.outputs),
        inner=wide(expected.inner),
        modules=wide(expected.modules),
    )


def merge_results(batch: Batch, groups: Sequence[np.ndarray], parts: Sequence[Whole]) -> Whole:
    """The results of groups of rows, as those of one batch."""
    order = np.argsort(np.concatenate(groups))

    def merged(own: Sequence[Values], missing: Callable[[np.ndarray], np.ndarray] = np.zeros_like) -> Values:
        """Joins the groups' values by name; `missing` makes the rows of a group that lacks one, in another's form."""
        found: Values = {}
        for name in dict.fromkeys(name for values in own for name in values):
            like = next(values[name] for values in own if name in values)[:1]
            rows = [values[name] if name in values else missing(like) for values in own]
            wide = [np.broadcast_to(r, (len(g), *r.shape[1:])) for r, g in zip(rows, groups, strict=True)]
            found[name] = _stacked(wide)
        return {name: array[order] for name, array in found.items()}

    routes = zip(*(part.groups for part in parts), strict=True)
    calls = range(max(len(part.decisions) for part in parts))
    decided = [[part.decisions[c] if c < len(part.decisions) else Decisions() for part in parts] for c in calls]
    return Whole(
        batch,
        merged([part.outputs for part in parts]),
        merged([part.inner for part in parts]),
        merged([part.modules for part in parts]),
        np.ones(batch.rows, dtype=bool),
        [merged(call, lambda like: np.full_like(like, -1)) for call in routes],
        np.concatenate([part.task for part in parts])[order],
        [Decisions(merged([d.scores for d in call], undisputed), merged([d.used for d in call])) for call in decided],
    )


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of all groups; logits of a task with fewer labels end in zeros, as in the bundle."""
    if arrays[0].ndim == 1:
        return np.concatenate(arrays)
    width = max(array.shape[-1] for array in arrays)
    return np.concatenate([np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, width - a.shape[-1])]) for a in arrays])
