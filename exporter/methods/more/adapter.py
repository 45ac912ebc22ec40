"""MoRE: a LoRA in every layer, of which each task uses as many ranks as the layer's gate gives it.

    e_t = argmax of softmax(gate embedding[t] + bias)             0 .. 7
    y  += (alpha / r) B[:, :e_t + 1] A[:e_t + 1] x

In the latest version of the released code rank i of A and of B is first multiplied by (i + 1) / 8; in the first version
it is not. No data decides it, so a task's update is one low-rank update. (NLPfreshman0/MoRE, peft/tuners/lora/layer.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.methods.mixture import MixtureAdapter

#: How many ranks the gate chooses among.
EXPERTS = 8


@dataclass(frozen=True)
class MoreModule:
    """What the file holds of one linear layer.

    Attributes:
        a: [r, in]. b: [out, r].
        embeddings: of the tasks, [tasks, in].
        gate: [8, in]. bias: [8].
        scale: alpha / r.
        scaled: whether rank i is multiplied by (i + 1) / 8 in A and in B.
    """

    a: np.ndarray
    b: np.ndarray
    embeddings: np.ndarray
    gate: np.ndarray
    bias: np.ndarray
    scale: float
    scaled: bool

    @property
    def in_features(self) -> int:
        return int(self.a.shape[1])

    @property
    def out_features(self) -> int:
        return int(self.b.shape[0])

    def chosen(self) -> np.ndarray:
        """The last rank of each task, [tasks]."""
        logits = self.embeddings.astype(np.float64) @ self.gate.astype(np.float64).T + self.bias
        chosen: np.ndarray = logits.argmax(1)
        return chosen

    def weights(self) -> np.ndarray:
        weights: np.ndarray = np.eye(EXPERTS)[self.chosen()]
        return weights

    def update(self, task: int) -> LinearUpdate:
        ranks = min(int(self.chosen()[task]) + 1, len(self.a))
        factors = np.arange(1, ranks + 1) / EXPERTS if self.scaled else np.ones(ranks)
        return LinearUpdate(factors[:, None] * self.a[:ranks], self.scale * factors * self.b[:, :ranks])

    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.a, self.b, self.embeddings, self.gate, self.bias

    def facts(self) -> Mapping[str, int]:
        return {"rank": self.a.shape[0], "experts": EXPERTS}


class MoreAdapter(MixtureAdapter):
    """A MoRE adapter of all its tasks."""

    method: ClassVar[str] = "more"
