"""How a tensor differs that the graphs do not hold as the model does, in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from eptx.exporter.validation.contents.tensors.graph_tensors import GraphTensor
from eptx.exporter.validation.contents.tensors.match import Place, blocks, fitting, near
from eptx.exporter.validation.contents.tensors.model_tensors import ModelTensor

#: A dense tensor counts as damaged, and not as absent, if more than this share of its numbers is there.
_MOST = 0.5


def difference(wanted: ModelTensor, held: Sequence[GraphTensor]) -> str | None:
    """How a tensor differs; None if it is no table and most of its numbers are not in the graphs either."""
    best, where = 0.0 if wanted.kind == "table" else _MOST, ""
    for place, start, found, same in _alike(wanted, held):
        share = float(same.mean())
        if best < share < 1:  # a part of a packed vector may equal another tensor
            best, where = share, _which(same)
        whole = start == 0 and len(found) == len(place.held.turned(place.turn))
        if not where and whole and _reordered(found, wanted.array.astype(found.dtype)):
            return "holds the rows of its source in another order"
    if where:
        return f"differs from its source in {where}"
    return _missing(wanted, held) if wanted.kind == "table" else None


def _alike(wanted: ModelTensor, held: Sequence[GraphTensor]) -> Iterator[tuple[Place, int, np.ndarray, np.ndarray]]:
    """Graph tensors of a tensor's shape that match no other: place, start, numbers, and which of them are right."""
    shape = wanted.array.shape
    for array in (wanted.array, *(form for form in wanted.forms if form.shape == shape)):
        for place in fitting(array, wanted.kind, wanted.side, held):
            for start, found in blocks(array, place):
                if not _is_taken(place.held, place.turn, start, start + len(array)):
                    exact = array is wanted.array
                    yield place, start, found, found == array.astype(found.dtype) if exact else near(found, array)


def _is_taken(held: GraphTensor, turn: bool, start: int, stop: int) -> bool:
    return any(turn == other and start < end and first < stop for other, first, end in held.taken)


def _which(same: np.ndarray) -> str:
    """The rows that differ, in words; of a vector its numbers, or the columns if those are fewer."""
    if same.shape[1] == 1:
        return _listed("number", np.flatnonzero(~same[:, 0]), len(same))
    rows, columns = np.flatnonzero(~same.all(1)), np.flatnonzero(~same.all(0))
    if len(columns) * 4 < len(rows):
        return _listed("column", columns, same.shape[1])
    return _listed("row", rows, len(same))


def _listed(word: str, which: np.ndarray, count: int) -> str:
    if len(which) == 1:
        return f"{word} {which[0]} of {count}"
    if which[-1] - which[0] == len(which) - 1:
        return f"{word}s {which[0]} to {which[-1]} of {count}"
    some = ", ".join(map(str, which[:3]))
    return f"{len(which)} of {count} {word}s ({some}{', ...' if len(which) > 3 else ''})"


def _reordered(found: np.ndarray, array: np.ndarray) -> bool:
    """Whether the rows are equal but in another order."""
    keys = np.random.default_rng(0).normal(size=array.shape[1])
    one, other = ((rows.astype(np.float64) * keys).sum(1) for rows in (np.ascontiguousarray(found), array))
    return bool(np.any(one != other)) and bool(np.array_equal(np.sort(one), np.sort(other)))


def _missing(wanted: ModelTensor, held: Sequence[GraphTensor]) -> str:
    """What is wrong with a table that no graph holds in its shape."""
    count, width = wanted.array.shape
    for one in held:
        for rows in (one.rows, one.rows.T):
            fits = rows.shape[1] == width and 1 < len(rows) < count and one.serves("table", wanted.side)
            if fits and np.array_equal(rows, wanted.array[: len(rows)].astype(rows.dtype)):
                return f"holds {len(rows)} of its {count} rows"
    return f"no graph of the bundle looks rows up in its numbers, {count} rows of {width}"
