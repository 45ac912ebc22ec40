"""MTL-LoRA: one A for all tasks, a matrix between for each, and several B that each task mixes.

    w_t = softmax(B_w[t] / temperature)                           [n]
    y  += (alpha / r) (sum over i of w_t[i] B_i) Lambda_t A x

Where a layer has a ``lora_scaler``, the update is multiplied by its sigmoid. (pUmpKin-Co/MTL-LoRA,
src/adapter/mlora.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.methods.mixture import MixtureAdapter, softmax


@dataclass(frozen=True)
class MtlLoraModule:
    """What the file holds of one linear layer.

    Attributes:
        a: [1, r, in]. b: [n, out, r].
        between: [tasks, r, r], or its diagonals [tasks, r].
        logits: [tasks, n].
        scaler: [], or None.
        scale: alpha / r.
        temperature: of the softmax.
    """

    a: np.ndarray
    b: np.ndarray
    between: np.ndarray
    logits: np.ndarray
    scaler: np.ndarray | None
    scale: float
    temperature: float

    @property
    def in_features(self) -> int:
        return int(self.a.shape[2])

    @property
    def out_features(self) -> int:
        return int(self.b.shape[1])

    def weights(self) -> np.ndarray:
        return softmax(self.logits.astype(np.float64) / self.temperature)

    def update(self, task: int) -> LinearUpdate:
        between = self.between[task].astype(np.float64)
        a = self.a[0].astype(np.float64)
        a = between[:, None] * a if between.ndim == 1 else between @ a
        b = np.tensordot(self.weights()[task], self.b, 1)
        gate = 1.0 if self.scaler is None else 1 / (1 + np.exp(-float(self.scaler)))
        return LinearUpdate(a, self.scale * gate * b)

    def arrays(self) -> tuple[np.ndarray, ...]:
        held = (self.a, self.b, self.between, self.logits)
        return held if self.scaler is None else (*held, self.scaler)

    def facts(self) -> Mapping[str, int]:
        return {"rank": self.a.shape[1], "experts": self.b.shape[0]}


class MtlLoraAdapter(MixtureAdapter):
    """An MTL-LoRA adapter of all its tasks."""

    method: ClassVar[str] = "mtl_lora"
