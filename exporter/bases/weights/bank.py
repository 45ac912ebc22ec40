"""A tensor of which the rows of a batch read their own, by their tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from eptx.exporter.adapters.changes import TensorChange, Whole

__all__ = ["Bank", "bank_of"]


@dataclass(frozen=True)
class Bank:
    """What tasks change of one tensor, and the tensor.

    Attributes:
        base: the base's own, float, as the model has it; None where the base has none, and then no row reads it.
        entries: the changes, each once; None: the base's own.
        rows: the entry of each task by id, then that of the base where it is served.
        size: how long the first axis is for all: shorter ones are filled with zeros.
        turned: whether the graph stores the tensor with its last two axes swapped.
        tokens: whether its rows are tokens, so that a row that an entry lacks must never win.
        tensor: its name in the class.
    """

    base: np.ndarray | None
    entries: tuple[TensorChange | None, ...]
    rows: tuple[int, ...]
    size: int
    turned: bool = False
    tokens: bool = False
    tensor: str = ""

    @cached_property
    def arrays(self) -> list[np.ndarray]:
        """What each entry makes of the tensor, as the graph stores it, float32."""
        return [self._stored(self.array(entry)) for entry in self.entries]

    def array(self, entry: TensorChange | None) -> np.ndarray:
        """What an entry makes of the tensor, as the model has it, not filled up, float32."""
        array = self.base if entry is None else entry.apply(self.base)
        assert array is not None
        return array.astype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of every row's tensor, as the model has it."""
        if self.base is not None:
            first: np.ndarray = self.base
        else:
            first = next(change.array for change in self.entries if isinstance(change, Whole))
        return (self.size, *first.shape[1:]) if first.ndim else ()

    def _stored(self, array: np.ndarray) -> np.ndarray:
        missing = self.size - len(array) if array.ndim else 0
        if missing:
            array = np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
        return np.ascontiguousarray(np.swapaxes(array, -1, -2)) if self.turned else array


def bank_of(base: np.ndarray | None, changes: Sequence[TensorChange | None], tensor: str) -> Bank:
    """A bank of what every row reads, without repetitions.

    Args:
        base: the base's tensor, None where it has none.
        changes: of each task by id, then of the base where it is served; None reads the base's.
        tensor: its name in the class.
    """
    entries: list[TensorChange | None] = []
    rows = []
    for given in changes:
        change = None if base is not None and isinstance(given, Whole) and _equal(given.array, base) else given
        same = next((i for i, other in enumerate(entries) if _same(change, other)), len(entries))
        entries += [change] if same == len(entries) else []
        rows.append(same)
    own = 0 if base is None or not base.ndim else len(base)
    size = max(own if change is None else change.length(own) for change in entries)
    return Bank(base, tuple(entries), tuple(rows), size, tensor=tensor)


def _same(one: TensorChange | None, other: TensorChange | None) -> bool:
    if one is None or other is None or type(one) is not type(other):
        return one is other
    mine, its = vars(one), vars(other)
    return all(_equal(mine[name], its[name]) for name in mine)


def _equal(one: object, other: object) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))
