"""The reference's results for one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.routers import Decisions
from eptx.runtime.validation.values import Values


class Known(Protocol):
    """The expected results of one batch, whole or sampled; see `Expected`."""

    @property
    def batch(self) -> Batch: ...
    @property
    def outputs(self) -> Mapping[str, Values]: ...
    @property
    def inner(self) -> Mapping[str, Values]: ...
    @property
    def modules(self) -> Mapping[str, Values]: ...
    @property
    def compared(self) -> np.ndarray: ...
    @property
    def groups(self) -> Sequence[Mapping[str, np.ndarray]]: ...
    @property
    def task(self) -> np.ndarray: ...
    def rows_of(self, task: str, /) -> np.ndarray: ...


@dataclass
class Expected:
    """The expected results of one batch.

    Attributes:
        batch: its inputs.
        outputs: output of the trained class -> float64 array [rows, ..].
        inner: the same of the bare model inside that class; a bundle need not have these.
        modules: module -> float64 array [rows, positions, out]; without the bias where the bundle's value has none.
        compared: bool [rows]; False for rows behind a router tie, which are set aside.
        groups: TuckA: for every call, module -> its group [1 or rows]; empty where there is no route.
        task: each row's task id, inferred where the row names none.
        decisions: of every call.
    """

    batch: Batch
    outputs: dict[str, np.ndarray]
    inner: dict[str, np.ndarray]
    modules: dict[str, np.ndarray]
    compared: np.ndarray
    groups: list[dict[str, np.ndarray]]
    task: np.ndarray
    decisions: list[Decisions] = field(default_factory=list, repr=False)

    def rows_of(self, task: str) -> np.ndarray:
        """bool [rows]: the compared rows of a task (``auto``: those to infer)."""
        return rows_of(self, task)


def rows_of(known: Known, task: str) -> np.ndarray:
    """bool [rows]: the compared rows of a task."""
    return np.asarray(np.array([name == task for name in known.batch.tasks]) & known.compared)
