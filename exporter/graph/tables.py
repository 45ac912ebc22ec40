"""Constants of a graph that have an entry for each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: One table's entries by task id; None for a task that has none.
Entries = Sequence[np.ndarray | None]


@dataclass(frozen=True)
class TaskTable:
    """What a constant [tasks, ...] holds, so that it can be taken apart again.

    Attributes:
        module: the module that it changes.
        part: which part of the module's update it is ("lora_A").
        axis: the axis of an entry along which tasks differ in size; smaller entries are filled up with zeros.
        sizes: by task id, the size of its entry along that axis; 0 for a task that has none.
    """

    module: str
    part: str
    axis: int
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, module: str, part: str, axis: int, entries: Entries) -> TaskTable:
        """The table that holds these entries."""
        return cls(module, part, axis, tuple(0 if entry is None else entry.shape[axis] for entry in entries))

    def stacked(self, entries: Entries) -> np.ndarray:
        """The entries as one array [tasks, ...], float64, zeros where a task has none."""
        shape = list(next(entry.shape for entry in entries if entry is not None))
        shape[self.axis] = max(self.sizes)
        array = np.zeros((len(entries), *shape))
        for row, entry in zip(array, entries, strict=True):
            if entry is not None:
                row[self._used(entry.shape[self.axis])] = entry
        return array

    def entries(self, array: np.ndarray) -> Entries:
        """The entries that the array holds, as `stacked` took them."""
        return [row[self._used(size)] if size else None for row, size in zip(array, self.sizes, strict=True)]

    def _used(self, size: int) -> tuple[slice, ...]:
        return (*[slice(None)] * self.axis, slice(size))
