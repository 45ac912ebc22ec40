"""Poly: every task mixes the same skills, with weights of its own.

    w_t = sigmoid(logits[t]) / (sum over skills + 1e-12)          [splits, skills]
    A_t = sum over skills of w_t A, joined over splits            [in, r]
    B_t = sum over skills of w_t B, joined over splits            [r, out]
    y += x A_t B_t / r

No data decides it, so a task's update is one low-rank update. (PEFT 0.21, tuners/poly: layer.py, router.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.methods.mixture import MixtureAdapter

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

    def by_split(self) -> np.ndarray:
        """How much each skill counts for each task, float64 [tasks, splits, skills]; their sum over skills is 1."""
        raw = 1 / (1 + np.exp(-self.logits.astype(np.float64)))
        weights: np.ndarray = raw / (raw.sum(-1, keepdims=True) + _EPSILON)
        return weights

    def weights(self) -> np.ndarray:
        """The mean over the splits."""
        weights: np.ndarray = self.by_split().mean(1)
        return weights

    def update(self, task: int) -> LinearUpdate:
        own = self.by_split()[task]
        a = np.einsum("qs,qsdr->qdr", own, self.a).reshape(self.in_features, self.rank)
        b = np.einsum("qs,qsrd->qdr", own, self.b).reshape(self.out_features, self.rank)
        return LinearUpdate(a.T, b / self.rank)

    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.a, self.b, self.logits

    def facts(self) -> Mapping[str, int]:
        return {"rank": self.rank, "skills": self.a.shape[1], "splits": self.a.shape[0]}


class PolyAdapter(MixtureAdapter):
    """A Poly adapter of all its tasks."""

    method: ClassVar[str] = "poly"
