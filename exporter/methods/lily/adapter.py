"""Lily: a layer's own A, and several B that a router mixes; layers may share both.

    h = A x
    w = mean over all tokens of the batch of softmax(router h)            [n]
    y += scaling (sum over i of w_i B_i)^T h

The mean makes a row's result depend on its batch, padding and all, as TuckA's router does. (PEFT 0.21,
tuners/lily/layer.py)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.methods.routed import RoutedAdapter


@dataclass(frozen=True)
class LilyModule:
    """What the file holds of one linear layer.

    Attributes:
        a: [r, in]. b: [n, r, out]. router: [n, r].
        scale: of the update.
    """

    a: np.ndarray
    b: np.ndarray
    router: np.ndarray
    scale: float

    @property
    def in_features(self) -> int:
        return int(self.a.shape[1])

    @property
    def out_features(self) -> int:
        return int(self.b.shape[2])

    @property
    def experts(self) -> int:
        return len(self.b)

    def update(self, weights: Sequence[float]) -> LinearUpdate:
        mixed = np.tensordot(np.asarray(weights, dtype=np.float64), self.b, 1)
        return LinearUpdate(self.a.astype(np.float64), self.scale * mixed.T)

    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.a, self.b, self.router

    def facts(self) -> Mapping[str, int]:
        return {"rank": self.a.shape[0], "experts": self.experts}


@dataclass(frozen=True, kw_only=True)
class LilyAdapter(RoutedAdapter):
    """A Lily adapter."""

    method: ClassVar[str] = "lily"
    modules: Mapping[str, LilyModule]

    def parameters(self) -> int:
        """What layers share counts once."""
        found = {array.tobytes(): array.size for module in self.modules.values() for array in module.arrays()}
        return sum(found.values())
