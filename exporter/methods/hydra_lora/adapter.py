"""HydraLoRA: low-rank experts that share A and have a B each; every token weighs them. LoRAMoE: each has its own A.

    p = softmax(route x)                                     [n], for every token
    y += (alpha / r) sum over i of p_i B_i A x               HydraLoRA
    y += (alpha / r) sum over i of p_i B_i A_i x             LoRAMoE

(Clin0212/HydraLoRA, HydraLoRA/peft/tuners/lora.py; Ablustrund/LoRAMoE, peft/tuners/lora.py)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.methods.routed import RoutedAdapter


@dataclass(frozen=True)
class HydraLoraModule:
    """What the file holds of one linear layer.

    Attributes:
        route: [n, in].
        a: [1, r, in], or [n, r, in]. b: [n, out, r].
        scale: alpha / r.
    """

    route: np.ndarray
    a: np.ndarray
    b: np.ndarray
    scale: float

    @property
    def in_features(self) -> int:
        return int(self.a.shape[2])

    @property
    def out_features(self) -> int:
        return int(self.b.shape[1])

    @property
    def experts(self) -> int:
        return len(self.b)

    @property
    def rank(self) -> int:
        """Of every expert."""
        return int(self.a.shape[1])

    def update(self, weights: Sequence[float]) -> LinearUpdate:
        own = self.scale * np.asarray(weights, dtype=np.float64)
        if len(self.a) == 1:
            return LinearUpdate(self.a[0].astype(np.float64), np.tensordot(own, self.b, 1))
        b = own[:, None, None] * self.b
        return LinearUpdate(self.a.reshape(-1, self.in_features).astype(np.float64), np.concatenate(list(b), axis=1))

    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.route, self.a, self.b

    def facts(self) -> Mapping[str, int]:
        return {"rank": self.rank, "experts": self.experts}


@dataclass(frozen=True, kw_only=True)
class HydraLoraAdapter(RoutedAdapter):
    """A HydraLoRA adapter, or one of LoRAMoE.

    Attributes:
        modules: linear layer -> what the file holds of it.
        kind_name: what manifests call it.
    """

    method: ClassVar[str] = "hydra_lora"
    modules: Mapping[str, HydraLoraModule]
    kind_name: str = "hydra_lora"

    @property
    def kind(self) -> str:
        return self.kind_name
