"""What the reference gave for one value of one batch: all of its numbers, or the sample of them that a proof holds.

A value [rows, ..., width] has a **place** for every row, or for every position of a row that is no padding, in the
order of rows and positions. A sample has `columns` numbers of each place: of place n those of the features
(n columns + j) modulo width, j = 0 .. columns - 1. So neighbouring places have different features, and all features
are seen within width / columns places. A value that is no wider than `columns` is whole.

In some layers a number at one position is a thousand times as large as the others, and so is its rounding. A sample
meets few such numbers. One that it meets would be all of its error, and how far rounding moves a single number is not
known. So the sample of a module leaves out what outweighs the rest, and NaN stands in its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.distance import Kind

#: How many of a place's largest numbers a sample of wide logits has besides.
LARGEST = 8
#: A number outweighs the rest if it is so many times their mean magnitude: no number of a normal distribution is.
_OUTWEIGHS = 8.0


@dataclass(frozen=True)
class Sampled:
    """A sample of a value.

    Attributes:
        shape: of the whole value.
        values: float64 [places, columns]; NaN where a number is left out.
        largest: of logits that are not whole: the indices of the largest numbers of every place int64 [places, n], the
            largest first, and these numbers float64 [places, n].
    """

    shape: tuple[int, ...]
    values: np.ndarray
    largest: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def ndim(self) -> int:
        """Of the whole value."""
        return len(self.shape)

    @property
    def columns(self) -> int:
        """How many numbers of each place there are."""
        return int(self.values.shape[1])


Values: TypeAlias = np.ndarray | Sampled


def sample(kind: Kind, array: np.ndarray, batch: Batch, columns: int, *, largest: bool = False) -> Sampled:
    """A sample of a value.

    Args:
        kind: what the value is of; what outweighs the rest of a module is left out, if not all is kept.
        array: float64 [rows, ..].
        batch: that it is of.
        columns: how many numbers of each place to keep.
        largest: whether to keep each place's largest as well, if not all are kept.
    """
    flat = places(array, batch)
    kept = _taken(flat, columns)
    if kind == "module" and kept.shape[1] < flat.shape[1]:
        size = np.abs(flat)
        kept = np.where(np.abs(kept) > _OUTWEIGHS * size.sum() / max(1, np.count_nonzero(size)), np.nan, kept)
    if not largest or kept.shape[1] == flat.shape[1]:
        return Sampled(array.shape, kept)
    order = np.argsort(-flat, axis=1, kind="stable")[:, :LARGEST]
    return Sampled(array.shape, kept, (order, np.take_along_axis(flat, order, axis=1)))


def fits(value: Sampled, batch: Batch) -> bool:
    """Whether the numbers of a sample are those of its shape."""
    count, width = len(place_rows(value.shape, batch)), math.prod(value.shape[1 if value.ndim < 3 else 2 :])
    if value.values.ndim != 2 or len(value.values) != count or value.columns > width:
        return False
    if value.largest is None:
        return True
    indices, numbers = value.largest
    inside = not indices.size or (indices.min() >= 0 and indices.max() < width)
    return inside and indices.shape == numbers.shape == (count, min(LARGEST, width))


def places(array: np.ndarray, batch: Batch) -> np.ndarray:
    """A value's numbers by place [places, width]."""
    kept = _positions(array.shape, batch)
    found = array if kept is None else array[kept]
    return found.reshape(len(found), -1)


def place_rows(shape: Sequence[int], batch: Batch) -> np.ndarray:
    """The row of every place of a value of this shape, int64 [places]."""
    kept = _positions(shape, batch)
    return np.arange(shape[0]) if kept is None else np.nonzero(kept)[0]


def errors(found: np.ndarray, exact: Values, rows: np.ndarray, batch: Batch) -> np.ndarray:
    """What was found less what is exact [n], without padding; of a sample, where it has numbers.

    Args:
        found: of the shape of `exact`.
        exact: what the reference gave.
        rows: bool [rows], those that count.
        batch: that both are of.
    """
    if isinstance(exact, Sampled):
        difference = sampled_values(found, exact, rows, batch) - exact.values[_counted(exact, rows, batch)]
        return np.asarray(difference)
    return kept_values(found - exact, rows, batch).reshape(-1)


def kept_values(array: np.ndarray, rows: np.ndarray, batch: Batch) -> np.ndarray:
    """The numbers of some rows [rows] bool, without those at padding."""
    return np.asarray(places(array, batch)[rows[place_rows(array.shape, batch)]])


def sampled_values(array: np.ndarray, like: Sampled, rows: np.ndarray, batch: Batch) -> np.ndarray:
    """The numbers [n] of some rows [rows] bool, where a sample of a value of the same shape has numbers."""
    return np.asarray(_taken(places(array, batch), like.columns)[_counted(like, rows, batch)])


def vector(exact: Values, batch: Batch, row: int, position: int | None = None) -> np.ndarray:
    """One row's numbers [width], or those of one of its positions.

    Of a sample that has only the largest of them, the others are minus infinity.
    """
    if not isinstance(exact, Sampled):
        return np.asarray(exact[row] if position is None else exact[row, position])
    kept = _positions(exact.shape, batch)
    place = row if kept is None else int(kept[:row].sum() + kept[row, :position].sum())
    if exact.largest is None:
        return np.asarray(exact.values[place])
    wide = np.full(exact.shape[-1], -np.inf)
    indices, numbers = exact.largest
    wide[indices[place]] = numbers[place]
    return wide


def _positions(shape: Sequence[int], batch: Batch) -> np.ndarray | None:
    """bool [rows, positions], those that are places; None where each row is one."""
    if len(shape) < 3:
        return None
    kept = batch.kept
    if kept is not None and shape[1] == kept.shape[1]:
        return kept
    return np.ones(tuple(shape[:2]), dtype=bool)


def _counted(exact: Sampled, rows: np.ndarray, batch: Batch) -> np.ndarray:
    """bool [places, columns], the numbers of some rows that are not left out."""
    return np.asarray(rows[place_rows(exact.shape, batch)][:, None] & ~np.isnan(exact.values))


def _taken(flat: np.ndarray, columns: int) -> np.ndarray:
    """The sample of [places, width]."""
    count, width = flat.shape
    if columns >= width:
        return flat
    index = (np.arange(count)[:, None] * columns + np.arange(columns)) % width
    return np.asarray(np.take_along_axis(flat, index, axis=1))
