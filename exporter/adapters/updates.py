"""What one task changes of a linear layer, whatever the method.

    y = gain * (W (input_gain * x) + B (A x)) + bias + shift

LoRA, DoRA, IA3 and other methods whose update is a constant of the task all become this.
"""

from __future__ import annotations

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
