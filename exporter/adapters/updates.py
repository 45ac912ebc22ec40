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


@dataclass(frozen=True)
class TensorTable:
    """What a constant holds of one tensor, so that the tasks' own can be taken out again.

    Attributes:
        tensor: the tensor's name in the class.
        value: its name in the base graph, where the base has it.
        turned: whether the base graph has its last two axes swapped.
        swapped: whether the constant has.
        entries: the entry of each task by id in a constant [entries, ...], then the base's where rows may read that;
            none where the constant is the one tensor that all have.
        sizes: of each entry, how long the tensor's first axis is: what stands behind is filled up.
        base: the entry that is the base's own; None where none is.
    """

    tensor: str
    value: str
    turned: bool
    swapped: bool
    entries: tuple[int, ...]
    sizes: tuple[int, ...]
    base: int | None

    def fits(self, array: np.ndarray, tasks: int) -> bool:
        """Whether an array has all entries, of so many tasks."""
        if not self.entries:
            return array.ndim > int(self.swapped)
        named = [*self.entries, *([] if self.base is None else [self.base])]
        own = array.shape[1:]
        longest = own[-1 if self.swapped else 0] if own else 0
        return (
            array.ndim > 2 * int(self.swapped)
            and len(self.entries) in (tasks, tasks + 1)
            and max(named) < min(len(array), len(self.sizes))
            and max(self.sizes) <= longest
        )

    def entry(self, array: np.ndarray, index: int) -> np.ndarray:
        """An entry as the class has it, of what the constant holds."""
        own = np.asarray(array[index] if self.entries else array)
        own = np.swapaxes(own, -1, -2) if self.swapped else own
        return own[: self.sizes[index]] if self.entries and own.ndim else own

    def of_task(self, array: np.ndarray, task: int) -> np.ndarray | None:
        """A task's own tensor as the class has it; None for the base's."""
        index = self.entries[task] if self.entries else 0
        return None if index == self.base else self.entry(array, index)


def sizes(entries: Sequence[np.ndarray | None], axis: int) -> tuple[int, ...]:
    """The size of each task's entry along an axis; 0 for None."""
    return tuple(0 if entry is None else entry.shape[axis] for entry in entries)
