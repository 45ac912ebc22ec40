"""MOELoRA: small LoRAs in every layer, which one gate for all layers mixes by the task's embedding.

    w_t = softmax(gate embedding[t])                              [E]
    y  += (alpha / r) sum over e of w_t[e] B_e A_e x              each A_e has rank r / E

No data decides it, so a task's update is one update of rank r. (liuqidong07/MOELoRA-peft, src/MLoRA/peft:
tuners/mmoelora.py, tuners/mmoeloraS.py, peft_model.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.methods.mixture import MixtureAdapter, softmax


@dataclass(frozen=True)
class MoeLoraModule:
    """What the file holds of one linear layer.

    Attributes:
        a: [E, r / E, in]. b: [E, out, r / E].
        embeddings: of the tasks, [tasks, width]; the same in all layers.
        gate: [E, width]; the same in all layers.
        scale: alpha / r.
    """

    a: np.ndarray
    b: np.ndarray
    embeddings: np.ndarray
    gate: np.ndarray
    scale: float

    @property
    def in_features(self) -> int:
        return int(self.a.shape[2])

    @property
    def out_features(self) -> int:
        return int(self.b.shape[1])

    def weights(self) -> np.ndarray:
        return softmax(self.embeddings.astype(np.float64) @ self.gate.astype(np.float64).T)

    def update(self, task: int) -> LinearUpdate:
        a = self.a.reshape(-1, self.in_features).astype(np.float64)
        weighed = self.scale * self.weights()[task][:, None, None] * self.b
        return LinearUpdate(a, np.concatenate(list(weighed), axis=1))

    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.a, self.b, self.embeddings, self.gate

    def facts(self) -> Mapping[str, int]:
        return {"rank": self.a.shape[0] * self.a.shape[1], "experts": self.a.shape[0]}


class MoeLoraAdapter(MixtureAdapter):
    """A MOELoRA adapter of all its tasks."""

    method: ClassVar[str] = "moelora"
