"""The reference's results for one batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from eptx.exporter.trained.output import LACKING
from eptx.exporter.validation.inputs.batch import Batch
from eptx.exporter.validation.reference.router_ties import Decisions


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
        return np.asarray(np.array([name == task for name in self.batch.tasks]) & self.compared)

    def less(self, other: Expected) -> Expected:
        """These results less others of the same batch."""
        return replace(
            self,
            outputs={name: _less(self.outputs[name], array) for name, array in other.outputs.items()},
            inner={name: self.inner[name] - array for name, array in other.inner.items()},
            modules={name: self.modules[name] - array for name, array in other.modules.items()},
        )


def _less(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The difference; zero where one of the two lacks the token of a logit."""
    difference: np.ndarray = one - other
    difference[(one <= LACKING) | (other <= LACKING)] = 0.0
    return difference


def arrays_of(values: Expected) -> Iterator[tuple[Literal["module", "output"], str, np.ndarray]]:
    """Every module's and output's array."""
    for name, array in values.modules.items():
        yield "module", name, array
    for name, array in (*values.outputs.items(), *values.inner.items()):
        yield "output", name, np.where(array <= LACKING, 0.0, array)


def kept_values(array: np.ndarray, rows: np.ndarray, batch: Batch) -> np.ndarray:
    """The numbers of some rows, without those at padding."""
    kept = batch.kept
    if kept is not None and array.ndim > 2 and array.shape[1] == kept.shape[1]:
        selected: np.ndarray = array[kept & rows[:, None]]
        return selected
    return np.asarray(array[rows])
