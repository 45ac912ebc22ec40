"""Adapters whose update of a linear layer is a constant of the task: no data decides it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from eptx.exporter.adapters.adapter import Adapter


class Update(Protocol):
    """One task's update of one linear layer, such as a `LinearUpdate`.

    Attributes:
        shift: [out], added to the bias; None where nothing is.
    """

    @property
    def shift(self) -> np.ndarray | None: ...

    def fold(self, weight: np.ndarray) -> np.ndarray:
        """`weight` [out, in] with the update in it, float64."""
        ...


@dataclass(frozen=True, kw_only=True)
class ConstantAdapter(Adapter):
    """One or several adapters without a router that reads data.

    Attributes:
        by_task: task name -> linear layer -> its update, or what it is made of. Tasks may adapt different layers.
    """

    by_task: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def update(self, task: str, module: str, weight: Callable[[], np.ndarray]) -> Update | None:
        """What a task changes of a module, whose weight is [out, in]; None if nothing."""
        found: Update | None = self.by_task[task].get(module)
        return found

    def shift(self, task: str, module: str) -> np.ndarray | None:
        """What a task adds to the bias of a module, [out]; None for nothing."""
        own = self.by_task[task].get(module)
        shift: np.ndarray | None = None if own is None else own.shift
        return shift
