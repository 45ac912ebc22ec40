"""What one task changes of a tensor of the base that is no linear layer's weight: an embedding, a norm, a bias, a head.

A linear layer's update is a matter of its own: the graph adds it beside the product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np

__all__ = ["LowRank", "Rows", "TensorChange", "Whole"]

_LACKING = "is changed in part, and the base does not have it"


@dataclass(frozen=True)
class Whole:
    """Another tensor in its place.

    Attributes:
        array: of any shape; the first axis may be longer than the base's (labels, a resized vocabulary).
        tied: whether modules that share the tensor with this one in the base go on sharing it.
    """

    array: np.ndarray
    tied: bool = False

    def misfit(self, shape: Sequence[int] | None) -> str | None:
        """Why it cannot be of a base's tensor of this shape, None where it can; without a shape the base lacks it."""
        if shape is None or (list(self.array.shape[1:]) == list(shape[1:]) and self.array.ndim == len(shape)):
            return None
        return f"is {list(self.array.shape)} in the adapter; the base's class has {list(shape)}"

    def apply(self, base: np.ndarray | None) -> np.ndarray:
        """The task's tensor, float64; the base may lack it."""
        return self.array.astype(np.float64)

    def length(self, base: int) -> int:
        """How long the first axis becomes, where the base's is so long."""
        return len(self.array) if self.array.ndim else 0

    def parameters(self) -> int:
        """How many numbers the adapter's file holds for it."""
        return int(self.array.size)


@dataclass(frozen=True)
class Rows:
    """Other rows in the place of some.

    Attributes:
        indices: int64 [n], each once, of the first axis.
        rows: [n, *rest].
        of: the tensor whose rows they replace, where it is not the base's (a resized vocabulary). tied: see `Whole`.
    """

    indices: np.ndarray
    rows: np.ndarray
    of: np.ndarray | None = None
    tied: bool = False

    def misfit(self, shape: Sequence[int] | None) -> str | None:
        """Why it cannot be of a base's tensor of this shape, None where it can; without a shape the base lacks it."""
        shape = shape if self.of is None else self.of.shape
        if shape is None:
            return _LACKING
        if list(shape[1:]) != list(self.rows.shape[1:]):
            return f"has rows of {list(self.rows.shape[1:])} in the adapter, of {list(shape[1:])} in the base"
        last = int(self.indices.max(initial=0))
        return None if last < shape[0] else f"has row {last} in the adapter; the base has {shape[0]} rows"

    def apply(self, base: np.ndarray | None) -> np.ndarray:
        """The task's tensor, float64."""
        base = base if self.of is None else self.of
        assert base is not None
        result = base.astype(np.float64)
        result[self.indices] = self.rows
        return result

    def length(self, base: int) -> int:
        """How long the first axis becomes, where the base's is so long."""
        return base if self.of is None else len(self.of)

    def parameters(self) -> int:
        """How many numbers the adapter's file holds for it."""
        return int(self.rows.size + (0 if self.of is None else self.of.size))


@dataclass(frozen=True)
class LowRank:
    """A product of two factors added: ``W + B A``, in the shape of W; and DoRA's ``magnitude * W' / ||W'||`` of that.

    Attributes:
        a: float64 [..., r, n]. b: float64 [..., m, r], with the scale in it. Axes before the last two are a stack
            (experts); [..., m, n] has as many numbers as W, in its order.
        magnitude: float64, as long as `axis`; None without DoRA.
        axis: of W, the one that a magnitude is for. The norm is over all other axes.
        of: W, where it is not the base's (a resized vocabulary). tied: see `Whole`.
    """

    a: np.ndarray
    b: np.ndarray
    magnitude: np.ndarray | None = None
    axis: int = 0
    of: np.ndarray | None = None
    tied: bool = False

    def misfit(self, shape: Sequence[int] | None) -> str | None:
        """Why it cannot be of a base's tensor of this shape, None where it can; without a shape the base lacks it."""
        shape = shape if self.of is None else self.of.shape
        if shape is None:
            return _LACKING
        made = (*self.a.shape[:-2], self.b.shape[-2], self.a.shape[-1])
        if prod(made) != prod(shape) or self.a.shape[:-2] != self.b.shape[:-2] or self.a.shape[-2] != self.b.shape[-1]:
            return f"has factors {list(self.b.shape)} and {list(self.a.shape)}; the base's tensor is {list(shape)}"
        if self.magnitude is not None and self.magnitude.shape != (shape[self.axis],):
            return f"has a magnitude of {list(self.magnitude.shape)}; the base's tensor is {list(shape)}"
        return None

    def apply(self, base: np.ndarray | None) -> np.ndarray:
        """The task's tensor, float64."""
        base = base if self.of is None else self.of
        assert base is not None
        adapted = self._added(base)
        return adapted if self.magnitude is None else adapted * self._along(adapted, self._gain(adapted))

    def gain(self, base: np.ndarray | None) -> np.ndarray | None:
        """What ``W + B A`` is multiplied by along `axis`, float64; None without DoRA."""
        base = base if self.of is None else self.of
        assert base is not None
        return None if self.magnitude is None else self._gain(self._added(base))

    def length(self, base: int) -> int:
        """How long the first axis becomes, where the base's is so long."""
        return base if self.of is None else len(self.of)

    def parameters(self) -> int:
        """How many numbers the adapter's file holds for it."""
        return int(self.a.size + self.b.size + (0 if self.magnitude is None else self.magnitude.size))

    def _added(self, base: np.ndarray) -> np.ndarray:
        update = self.b.astype(np.float64) @ self.a.astype(np.float64)
        return np.asarray(base.astype(np.float64) + update.reshape(base.shape))

    def _gain(self, adapted: np.ndarray) -> np.ndarray:
        assert self.magnitude is not None
        others = tuple(axis for axis in range(adapted.ndim) if axis != self.axis % adapted.ndim)
        return np.asarray(self.magnitude / np.sqrt(np.square(adapted).sum(others)))

    def _along(self, adapted: np.ndarray, gain: np.ndarray) -> np.ndarray:
        shape = [1] * adapted.ndim
        shape[self.axis] = -1
        return gain.reshape(shape)


#: What one task changes of one tensor.
TensorChange: TypeAlias = Whole | Rows | LowRank
