"""Constants of a graph that have an entry for each task, declared where they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TaskTable:
    """What one module has in a constant [tasks, ...], so that the tasks can be taken out again.

    Attributes:
        module: the module that it changes.
        part: which part of the module's update it is, a field of `LinearUpdate`.
        axis: of an entry: along which the tasks' entries differ in size, or modules lie side by side.
        sizes: by task id, the size of its entry along that axis; 0 for a task that has none.
        start: where along that axis the entries begin.
    """

    module: str
    part: str
    axis: int
    sizes: tuple[int, ...]
    start: int = 0

    def fits(self, array: np.ndarray, tasks: int) -> bool:
        """Whether an array has all entries, of so many tasks."""
        shape = array.shape
        inside = len(shape) > self.axis + 1 and self.start + max(self.sizes, default=0) <= shape[self.axis + 1]
        return inside and shape[0] >= len(self.sizes) == tasks

    def entry(self, array: np.ndarray, task: int) -> np.ndarray | None:
        """The entry of a task in what the constant holds; None if it has none."""
        size = self.sizes[task]
        place: tuple[int | slice, ...] = (task, *[slice(None)] * self.axis, slice(self.start, self.start + size))
        return array[place] if size else None


def sizes(entries: Sequence[np.ndarray | None], axis: int) -> tuple[int, ...]:
    """The size of each task's entry along an axis; 0 for None."""
    return tuple(0 if entry is None else entry.shape[axis] for entry in entries)
