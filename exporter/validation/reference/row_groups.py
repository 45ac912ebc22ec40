"""A batch in groups of rows that are run apart, and what they gave as that of one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from eptx.exporter.validation.inputs.batch import ANSWER_IDS, Batch
from eptx.exporter.validation.reference.expected import Expected
from eptx.exporter.validation.reference.router_ties import Decisions


def rows_of(batch: Batch, rows: np.ndarray) -> Batch:
    """Some rows of a batch, padded as they are in it."""
    if len(rows) == batch.rows:
        return batch
    return replace(
        batch,
        arrays={name: array[rows] for name, array in batch.arrays.items()},
        tasks=tuple(batch.tasks[row] for row in rows),
        labels=tuple(batch.labels[row] for row in rows) if batch.labels else (),
    )


def shapes_of(batch: Batch) -> list[tuple[bytes, ...]]:
    """What rows must have in common to be run without padding; nothing where padding is the model's own business."""
    if batch.prompt is None or ANSWER_IDS in batch.arrays or batch.kept is None:
        return [()] * batch.rows
    return [(row.tobytes(),) for row in batch.kept]


def columns_of(batch: Batch) -> np.ndarray:
    """The columns of a generator's rows, all of one shape, that are not padding."""
    if batch.prompt is None or ANSWER_IDS in batch.arrays or batch.kept is None:
        return np.arange(batch.length)
    return np.flatnonzero(batch.kept.any(axis=0))


def narrowed(batch: Batch, columns: np.ndarray) -> Batch:
    """A batch with some of its columns."""
    assert batch.prompt is not None
    arrays = {name: array[:, columns] for name, array in batch.arrays.items()}
    return replace(batch, arrays=arrays, prompt=int((columns < batch.prompt).sum()))


def widened(expected: Expected, batch: Batch, columns: np.ndarray) -> Expected:
    """What some columns gave, where the batch has them; zeros elsewhere, which nobody compares."""

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


def merged(batch: Batch, groups: Sequence[np.ndarray], parts: Sequence[Expected]) -> Expected:
    """What groups of rows gave, as one batch."""
    order = np.argsort(np.concatenate(groups))

    def arrays(of: str) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        names = dict.fromkeys(name for part in parts for name in getattr(part, of))
        for name in names:
            found[name] = _stacked([getattr(part, of)[name] for part in parts])[order]
        return found

    calls = max(len(part.groups) for part in parts)
    return Expected(
        batch,
        arrays("outputs"),
        arrays("inner"),
        arrays("modules"),
        np.ones(batch.rows, dtype=bool),
        [_merged_groups([part.groups[call] for part in parts], groups, order) for call in range(calls)],
        np.concatenate([part.task for part in parts])[order],
        _merged_decisions([part.decisions for part in parts], groups, order),
    )


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Rows below each other; logits of a task of fewer labels end in zeros, as they are served."""
    width = max(array.shape[-1] for array in arrays)
    padded = [np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, width - a.shape[-1])]) for a in arrays]
    return np.concatenate(padded)


def _merged_groups(
    parts: Sequence[Mapping[str, np.ndarray]], groups: Sequence[np.ndarray], order: np.ndarray
) -> dict[str, np.ndarray]:
    if not all(parts):
        parts = [part or dict.fromkeys(next((p for p in parts if p), {}), np.array([-1])) for part in parts]
    return {
        name: np.concatenate([np.broadcast_to(p[name], len(g)) for p, g in zip(parts, groups, strict=True)])[order]
        for name in parts[0]
    }


def _merged_decisions(
    parts: Sequence[Sequence[Decisions]], groups: Sequence[np.ndarray], order: np.ndarray
) -> list[Decisions]:
    """Call by call: a group of rows with fewer calls has decided nothing in the later ones."""
    calls = max(map(len, parts))
    merged = []
    for call in range(calls):
        own = [part[call] if call < len(part) else Decisions() for part in parts]
        merged.append(
            Decisions(
                _spread([each.scores for each in own], groups, order, decided=True),
                _spread([each.used for each in own], groups, order, decided=False),
            )
        )
    return merged


def _spread(
    parts: Sequence[Mapping[str, np.ndarray]], groups: Sequence[np.ndarray], order: np.ndarray, *, decided: bool
) -> dict[str, np.ndarray]:
    """Values of some groups' rows as values of all rows: others had no contest, or used no task of their own."""
    found: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        like = next(part[name] for part in parts if name in part)
        rows = []
        for part, group in zip(parts, groups, strict=True):
            if name in part:
                rows.append(np.broadcast_to(part[name], (len(group), *like.shape[1:])))
                continue
            blank = np.zeros((len(group), *like.shape[1:]), dtype=like.dtype)
            if decided:
                blank[:, 0] = 1
            rows.append(blank)
        found[name] = np.concatenate(rows)[order]
    return found
