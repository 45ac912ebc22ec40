"""What one call of a session returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from eptx.bundle import Task
from eptx.errors import RequestError

Array = npt.NDArray[np.generic]


class Outputs(Mapping[str, Array]):
    """The graph outputs of one call by name, and what they mean for each row's task.

    ``outputs["logits"]`` is the array as the graph gives it, padded to the largest label count; `logits` has
    each row's own. Arrays are the caller's to change.

    Attributes:
        tasks: name of each row's task; with ``task="auto"``, the one that was inferred.
    """

    def __init__(self, arrays: Mapping[str, Array], rows: Sequence[Task]) -> None:
        self._arrays = dict(arrays)
        self._rows = tuple(rows)
        self.tasks = tuple(task.name for task in rows)

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}{list(array.shape)}" for name, array in self._arrays.items())
        return f"Outputs({shapes})"

    @property
    def logits(self) -> list[Array]:
        """Each row's logits: [labels of its task], or [length, labels] where tokens are labelled; empty for a task
        without a head.

        Raises:
            RequestError: the bundle has no output ``logits``.
        """
        if "logits" not in self._arrays:
            raise RequestError(f"this bundle has no output 'logits'; it has {', '.join(self._arrays)}")
        return [row[..., : task.labels] for row, task in zip(self._arrays["logits"], self._rows, strict=True)]

    @property
    def labels(self) -> list[str | int | float | None]:
        """Each row's answer: the best label's name, or its index where the bundle has no names; the value
        itself for a
        task of one label (regression); None for a task without a head."""
        return [_label(row, task) for row, task in zip(self.logits, self._rows, strict=True)]

    @property
    def scores(self) -> list[float | None]:
        """How sure each row's label is: its probability among the labels of the row's task (softmax); None for a task
        of one label (regression) or without a head."""
        return [_score(row) for row in self.logits]


def _label(logits: Array, task: Task) -> str | int | float | None:
    if logits.ndim != 1 or logits.size == 0:
        return None
    if logits.size == 1:
        return float(logits[0].item())
    best = int(np.argmax(logits))
    return best if task.label_names is None else task.label_names[best]


def _score(logits: Array) -> float | None:
    if logits.ndim != 1 or logits.size < 2:
        return None
    above = logits.astype(np.float64) - logits.max()
    return float(1 / np.exp(above).sum())
