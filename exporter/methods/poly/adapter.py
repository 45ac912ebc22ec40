"""Poly: every task mixes the same skills, with weights of its own.

    w_t = sigmoid(logits[t]) / (sum over skills + 1e-12)          [splits, skills]
    A_t = sum over skills of w_t A, joined over splits            [in, r]
    B_t = sum over skills of w_t B, joined over splits            [r, out]
    y += x A_t B_t / r

No data decides it, so a task's update is one low-rank update. (PEFT 0.21, tuners/poly: layer.py, router.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from eptx.exporter.adapters.adapter import Widths, natural_key
from eptx.exporter.adapters.constant import ConstantAdapter
from eptx.exporter.adapters.updates import LinearUpdate

#: PEFT divides by the sum of a task's weights and this.
_EPSILON = 1e-12


@dataclass(frozen=True)
class PolyModule:
    """What the file holds of one linear layer.

    Attributes:
        a: [splits, skills, in / splits, r]. b: [splits, skills, r, out / splits].
        logits: [tasks, splits, skills].
    """

    a: np.ndarray
    b: np.ndarray
    logits: np.ndarray

    @property
    def rank(self) -> int:
        """Of every skill, and of what a task mixes of them."""
        return int(self.a.shape[3])

    @property
    def in_features(self) -> int:
        return int(self.a.shape[0] * self.a.shape[2])

    @property
    def out_features(self) -> int:
        return int(self.b.shape[0] * self.b.shape[3])

    def weights(self) -> np.ndarray:
        """How much each skill counts for each task, float64 [tasks, splits, skills]; their sum over skills is 1."""
        raw = 1 / (1 + np.exp(-self.logits.astype(np.float64)))
        weights: np.ndarray = raw / (raw.sum(-1, keepdims=True) + _EPSILON)
        return weights

    def update(self, task: int) -> LinearUpdate:
        """The update of a task, by its id."""
        own = self.weights()[task]
        a = np.einsum("qs,qsdr->qdr", own, self.a).reshape(self.in_features, self.rank)
        b = np.einsum("qs,qsrd->qdr", own, self.b).reshape(self.out_features, self.rank)
        return LinearUpdate(a.T, b / self.rank)

    def parameters(self) -> int:
        """How many numbers the module stores."""
        return self.a.size + self.b.size + self.logits.size


@dataclass(frozen=True, kw_only=True)
class PolyAdapter(ConstantAdapter):
    """A Poly adapter of all its tasks.

    Attributes:
        modules: linear layer -> what the file holds of it.
    """

    method: ClassVar[str] = "poly"
    modules: Mapping[str, PolyModule] = field(default_factory=dict)

    @property
    def module_names(self) -> tuple[str, ...]:
        return tuple(sorted(self.modules, key=natural_key))

    def widths(self, module: str) -> Widths:
        own = self.modules[module]
        return Widths(own.in_features, range(own.out_features, own.out_features + 1))

    def parameters(self) -> int:
        return sum(module.parameters() for module in self.modules.values())

    def describe(self) -> dict[str, Any]:
        return {
            "modules": [
                {"name": name, "rank": module.rank, "skills": module.a.shape[1], "splits": module.a.shape[0]}
                for name, module in ((name, self.modules[name]) for name in self.module_names)
            ]
        }
