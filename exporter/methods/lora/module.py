"""One task's LoRA of one linear layer, and its algebra.

    W' = W0 + scale * B diag(d) A        d is KaSA's, or ones
    y  = gain * W' x + bias + scale * c

W0 is the base's weight W, or what a start took from it: PiSSA its largest singular components, OLoRA the first columns
of its QR decomposition, KaSA its smallest singular components. DoRA's gain is magnitude / ||W'|| per output, without it
the gain is one. c is the bias of lora_B, which DoRA's has not. (PEFT 0.21, tuners/lora: layer.py, dora.py, variants.py)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eptx.exporter.adapters.updates import LinearUpdate


@dataclass(frozen=True)
class LoraModule:
    """One task's factors for one linear.

    Attributes:
        a: [r, in]. b: [out, r].
        scale: alpha / r, or alpha / sqrt(r) with rsLoRA.
        magnitude: DoRA's [out], or None.
        bias: that of lora_B, [out], or None.
        diagonal: KaSA's [r], or None.
        start: what changed the base's weight: "pissa", "olora", "kasa"; "" for nothing.
    """

    a: np.ndarray
    b: np.ndarray
    scale: float
    magnitude: np.ndarray | None = None
    bias: np.ndarray | None = None
    diagonal: np.ndarray | None = None
    start: str = ""

    def update(self, weight: Callable[[], np.ndarray]) -> LinearUpdate:
        """The update of a linear whose weight is [out, in]; few settings ask for that."""
        a, b = self.a, self.scale * self.b.astype(np.float64)
        if self.diagonal is not None:
            b = b * self.diagonal
        if self.start:
            left, right = _taken(self.start, weight().astype(np.float64), self.a.shape[0], self.scale)
            a, b = np.concatenate([a, right]), np.concatenate([b, -left], axis=1)
        if self.magnitude is None:
            return LinearUpdate(a, b, shift=self.shift)
        adapted = weight().astype(np.float64) + b @ a.astype(np.float64)
        return LinearUpdate(a, b, gain=self.magnitude / np.linalg.norm(adapted, axis=1))

    @property
    def shift(self) -> np.ndarray | None:
        """What is added to the layer's bias, [out]; None for nothing."""
        return None if self.bias is None else self.scale * self.bias.astype(np.float64)

    def parameters(self) -> int:
        """How many numbers the module stores."""
        stored = (self.a, self.b, self.magnitude, self.bias, self.diagonal)
        return sum(array.size for array in stored if array is not None)


def _taken(start: str, weight: np.ndarray, rank: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """What a start took from a weight [out, in], as factors [out, rank] and [rank, in].

    PEFT computes it in float32 with PyTorch, and leaves the rounding in the base that it trains on; so it is done here.
    """
    import torch

    matrix = torch.from_numpy(weight).float()
    if start == "olora":
        q, r = torch.linalg.qr(matrix)
        left, right = q[:, :rank], r[:rank]
        return scale * left.double().numpy(), right.double().numpy()
    u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    if start == "kasa":
        own = slice(len(values) - rank, None)
        return (u[:, own] * values[own]).double().numpy(), vh[own].double().numpy()
    roots = torch.diag(torch.sqrt(values[:rank] / scale))
    return scale * (u[:, :rank] @ roots).double().numpy(), (roots @ vh[:rank]).double().numpy()
