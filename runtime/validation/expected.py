"""The reference's results for one batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

import numpy as np

from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.routers import Decisions
from eptx.runtime.validation.values import Sampled

#: How values are given: whole, or as the sample that a proof holds.
V = TypeVar("V", np.ndarray, Sampled)


@dataclass
class Expected(Generic[V]):
    """The expected results of one batch.

    Attributes:
        batch: its inputs.
        outputs: output of the trained class -> float64 values [rows, ..].
        inner: the same of the bare model inside that class; a bundle need not have these.
        modules: module -> float64 values [rows, positions, out]; without the bias where the bundle's value has none.
        compared: bool [rows]; False for rows behind a router tie, which are set aside.
        groups: TuckA: for every call, module -> its group [1 or rows]; empty where there is no route.
        task: each row's task id, inferred where the row names none.
        decisions: of every call.
    """

    batch: Batch
    outputs: dict[str, V]
    inner: dict[str, V]
    modules: dict[str, V]
    compared: np.ndarray
    groups: list[dict[str, np.ndarray]]
    task: np.ndarray
    decisions: list[Decisions] = field(default_factory=list, repr=False)

    def rows_of(self, task: str) -> np.ndarray:
        """bool [rows]: the compared rows of a task (``auto``: those to infer)."""
        return np.asarray(np.array([name == task for name in self.batch.tasks]) & self.compared)


#: What the reference gives, and what a proof holds of it.
Whole: TypeAlias = Expected[np.ndarray]
Proved: TypeAlias = Expected[Sampled]
