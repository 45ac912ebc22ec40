"""Shift adapters: one vector per task and module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from eptx.exporter.adapters.adapter import Adapter, Widths


@dataclass(frozen=True, kw_only=True)
class ShiftAdapter(Adapter):
    """One shift adapter.

    Attributes:
        vectors: module -> [tasks, out].
    """

    method: ClassVar[str] = "shift"
    vectors: Mapping[str, np.ndarray]

    @property
    def module_names(self) -> tuple[str, ...]:
        return tuple(self.vectors)

    def widths(self, module: str) -> Widths:
        out = self.vectors[module].shape[1]
        return Widths(None, range(out, out + 1))

    def parameters(self) -> int:
        return sum(vectors.size for vectors in self.vectors.values())

    def describe(self) -> dict[str, Any]:
        return {"modules": [{"name": name} for name in self.vectors]}
