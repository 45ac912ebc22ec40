"""The rows in which entries of a bank differ from the base: those alone are stored, where that is smaller."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eptx.exporter.adapters.changes import LowRank, Whole
from eptx.exporter.bases.weights.bank import Bank

__all__ = ["Differing", "differing"]


@dataclass(frozen=True)
class Differing:
    """A table and the rows of it that entries have of their own.

    Attributes:
        base: [n, *rest], what most rows of most entries are.
        rows: of each entry: row -> what it is instead, or behind the last.
        lengths: of each entry, how many rows it has.
    """

    base: np.ndarray
    rows: tuple[dict[int, np.ndarray], ...]
    lengths: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many rows the longest entry has."""
        return max(self.lengths)


def differing(bank: Bank) -> Differing | None:
    """What is to be stored of a bank of matrices; None where whole entries are not larger.

    A product of factors is not in it: it is added to what stands here.
    """
    arrays = [_before_factors(bank, index) for index in range(len(bank.entries))]
    base = bank.base if bank.base is not None else arrays[0]
    rows = tuple(_own(base, array) for array in arrays)
    plain = any(isinstance(entry, LowRank) for entry in bank.entries)
    distinct = len(base) + sum(map(len, rows))
    if not plain and distinct >= sum(map(len, arrays)):
        return None
    return Differing(base, rows, tuple(map(len, arrays)))


def _before_factors(bank: Bank, index: int) -> np.ndarray:
    entry = bank.entries[index]
    if isinstance(entry, LowRank):
        entry = None if entry.of is None else Whole(entry.of)
    return bank.array(entry)


def _own(base: np.ndarray, array: np.ndarray) -> dict[int, np.ndarray]:
    shared = min(len(base), len(array))
    changed = np.flatnonzero((base[:shared] != array[:shared]).any(axis=tuple(range(1, array.ndim))))
    return {int(row): array[row] for row in (*changed, *range(shared, len(array)))}
