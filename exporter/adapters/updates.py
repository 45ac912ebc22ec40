"""What one task changes of a linear layer, whatever the method.

    y = gain * (W (input_gain * x) + B (A x)) + bias + shift

LoRA, DoRA, IA3 and other methods whose update is a constant of the task all become this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: The fields of an update: matrices, and vectors.
FACTORS = ("a", "b")
VECTORS = ("gain", "input_gain", "shift")


@dataclass(frozen=True)
class LinearUpdate:
    """One task's update of one linear layer; what is None changes nothing.

    Attributes:
        a: [r, in]. b: [out, r], with the scale multiplied in. Both or none.
        gain: [out], by which the product is multiplied before the bias is added.
        input_gain: [in], by which the input of the base's weight is multiplied.
        shift: [out], added to the bias.
    """

    a: np.ndarray | None = None
    b: np.ndarray | None = None
    gain: np.ndarray | None = None
    input_gain: np.ndarray | None = None
    shift: np.ndarray | None = None

    def __post_init__(self) -> None:
        if (self.a is None) != (self.b is None):
            raise ValueError("a low-rank update has both factors")

    def parameters(self) -> int:
        """How many numbers it holds."""
        parts = (getattr(self, name) for name in (*FACTORS, *VECTORS))
        return sum(part.size for part in parts if part is not None)

    def fold(self, weight: np.ndarray) -> np.ndarray:
        """`weight` [out, in] with the update in it, float64; the `shift` is of the bias, and not in it."""
        folded = np.asarray(weight, dtype=np.float64)
        if self.input_gain is not None:
            folded = folded * self.input_gain
        if self.a is not None and self.b is not None:
            folded = folded + self.b.astype(np.float64) @ self.a.astype(np.float64)
        if self.gain is not None:
            folded = folded * self.gain.astype(np.float64)[:, None]
        return folded


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
