"""Finds a tensor in the graphs: as it is, transposed, as a block of rows or columns, or in a computed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from eptx.exporter.validation.contents.tensors.graph_tensors import GraphTensor
from eptx.exporter.validation.contents.tensors.model_tensors import Kind, ModelTensor

#: Tolerance of two float32 computations of one tensor, relative to the largest number.
_ROUNDING = 2.0**-18


@dataclass(frozen=True)
class Match:
    """The tensor is rows [start, stop) of a graph tensor, or columns, if `turn`."""

    held: GraphTensor
    turn: bool
    start: int
    stop: int


def find(wanted: ModelTensor, held: Sequence[GraphTensor]) -> Match | None:
    """Finds the tensor exactly (rounded to float16 where the graph stores that); a table's rows keep their numbers."""
    stored: dict[np.dtype, np.ndarray] = {}
    for place in fitting(wanted.array, wanted.kind, wanted.side, held):
        array = _as(wanted.array, place.held.rows.dtype, stored)
        for start in _starts(array, place, 0):
            if (wanted.kind != "table" or start == 0) and _equal(_block(place, start, len(array)), array):
                return Match(place.held, place.turn, start, start + len(array))
    return None


def find_form(wanted: ModelTensor, held: Sequence[GraphTensor]) -> bool:
    """Whether the graphs hold, within rounding, a form that the model computes from the tensor and other parameters."""
    for form in wanted.forms:
        for place in fitting(form, wanted.kind, wanted.side, held):
            if len(place.held.turned(place.turn)) == len(form) and is_near(place.held.turned(place.turn), form):
                place.held.taken.append((place.turn, 0, len(form)))
                return True
    return False


def find_shifted(wanted: ModelTensor, held: Sequence[GraphTensor]) -> bool:
    """Whether the graphs hold all rows of a table times one number, or plus one row; every run uses those two."""
    if wanted.kind != "table":
        return False
    for place in fitting(wanted.array, wanted.kind, wanted.side, held):
        found = place.held.turned(place.turn)
        if len(found) == len(wanted.array) and _is_affine(found, wanted.array):
            place.held.taken.append((place.turn, 0, len(found)))
            return True
    return False


@dataclass(frozen=True)
class Place:
    """A graph tensor that may hold a tensor's numbers, and whether to read it transposed."""

    held: GraphTensor
    turn: bool


def fitting(array: np.ndarray, kind: Kind, side: str | None, held: Sequence[GraphTensor]) -> Iterator[Place]:
    """Graph tensors of the same width and use with as many rows or more; those of equal size come first."""
    count, width = array.shape
    places = []
    for one in held:
        if not one.serves(kind, side):
            continue
        for turn in (False, True):
            shape = one.rows.shape[::-1] if turn else one.rows.shape
            if shape[1] == width and shape[0] >= count:
                places.append((shape[0], Place(one, turn)))
    return (place for _, place in sorted(places, key=lambda pair: pair[0]))


def blocks(array: np.ndarray, place: Place) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of a graph tensor that share a number at the same place with a tensor, and where they start."""
    array = _as(array, place.held.rows.dtype, {})
    starts: dict[int, None] = {}
    for probe in sorted({0, len(array) // 3, len(array) // 2, len(array) - 1}):
        starts |= dict.fromkeys(_starts(array, place, probe)[:4].tolist())
    if len(place.held.turned(place.turn)) == len(array):
        starts = {0: None}
    for start in starts:
        yield start, _block(place, start, len(array))


def _starts(array: np.ndarray, place: Place, probe: int) -> np.ndarray:
    """The starts of blocks whose row `probe` begins with the tensor's number."""
    firsts = place.held.firsts[place.turn]
    stop = len(firsts) - len(array) + 1
    return np.flatnonzero(firsts[probe : probe + stop] == array[probe, 0])


def _block(place: Place, start: int, count: int) -> np.ndarray:
    return place.held.turned(place.turn)[start : start + count]


def _as(array: np.ndarray, dtype: np.dtype, stored: dict[np.dtype, np.ndarray]) -> np.ndarray:
    if dtype not in stored:
        with np.errstate(over="ignore"):
            stored[dtype] = array.astype(dtype, copy=False)
    return stored[dtype]


def _equal(found: np.ndarray, array: np.ndarray) -> bool:
    middle = len(array) // 2
    if not np.array_equal(found[middle], array[middle], equal_nan=True):
        return False
    return bool(np.array_equal(found, array, equal_nan=True))


def is_near(found: np.ndarray, array: np.ndarray) -> bool:
    """Whether all numbers are within rounding, that of float16 where the graph stores it."""
    return bool(near(found, array).all())


def near(found: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Which numbers are equal within rounding of the largest, bool of the same shape."""
    half = 2.0**-10 if found.dtype == np.float16 else 0.0
    most = (_ROUNDING + half) * float(np.abs(array).max())
    return np.asarray(np.abs(found.astype(np.float32) - array) <= most)


def _is_affine(found: np.ndarray, array: np.ndarray) -> bool:
    """Whether all rows are the table's rows times one number, not 0, plus one row."""
    if len(array) < 4:
        return False  # too few rows to tell
    found, array = found.astype(np.float64), array.astype(np.float64)
    a, b = array - array.mean(0), found - found.mean(0)
    size = float(np.square(a).sum())
    factor = float((a * b).sum()) / size if size else 0.0
    return factor != 0.0 and is_near(b.astype(np.float32), (factor * a).astype(np.float32))
