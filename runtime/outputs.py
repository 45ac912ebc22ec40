"""The outputs of one call of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eptx.bundle import Task
from eptx.errors import RequestError
from eptx.manifest.names import MULTI_LABEL, REGRESSION

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
        """Each row's logits: [labels of its task], or [length, labels] where each token has its own; empty for a task
        without a head.

        Raises:
            RequestError: the bundle has no output ``logits``.
        """
        if "logits" not in self._arrays:
            raise RequestError(f"this bundle has no output 'logits'; it has {', '.join(self._arrays)}")
        return [row[..., : task.labels] for row, task in zip(self._arrays["logits"], self._rows, strict=True)]

    @property
    def labels(self) -> list[Any]:
        """Each row's answer, by the problem type of its task: the best label's name, or its index if the bundle has no
        names; for several labels a tuple of those with a probability above 1/2; for a regression the value, or a tuple
        of several; None for a task without a head. If each token has an answer, a list of the tokens'."""
        return self._each(_label)

    @property
    def scores(self) -> list[Any]:
        """Each row's probability of its answer: the best label's among the labels of its task (softmax); for several
        labels a tuple of every label's own (sigmoid); None for a regression or without a head. If each token has an
        answer, a list of the tokens'."""
        return self._each(_score)

    @property
    def probabilities(self) -> list[Array | None]:
        """Each label's probability, float64 in the shape of the row's `logits`; None for a regression or without a
        head."""
        return [_probabilities(row, task) for row, task in zip(self.logits, self._rows, strict=True)]

    def _each(self, answer: Callable[[Array, Task], Any]) -> list[Any]:
        """An answer for each row, or a list for the tokens of each."""
        found = zip(self.logits, self._rows, strict=True)
        return [
            [answer(token, task) for token in row] if row.ndim == 2 and task.problem_type else answer(row, task)
            for row, task in found
        ]


def _label(logits: Array, task: Task) -> Any:
    if task.problem_type is None or logits.ndim != 1 or logits.size == 0:
        return None
    if task.problem_type == REGRESSION:
        return float(logits[0].item()) if logits.size == 1 else tuple(float(value.item()) for value in logits)
    names: Sequence[str | int] = task.label_names or range(logits.size)
    if task.problem_type == MULTI_LABEL:
        return tuple(name for name, logit in zip(names, logits, strict=True) if logit > 0)  # its sigmoid is above 1/2
    return names[int(np.argmax(logits))]


def _score(logits: Array, task: Task) -> Any:
    found = _probabilities(logits, task) if logits.ndim == 1 and logits.size else None
    if found is None:
        return None
    return tuple(found.tolist()) if task.problem_type == MULTI_LABEL else float(found.max())


def _probabilities(logits: Array, task: Task) -> npt.NDArray[np.float64] | None:
    """As transformers' pipelines have it: sigmoid of several labels, softmax of one."""
    if task.problem_type in (None, REGRESSION):
        return None
    exact = logits.astype(np.float64)
    if task.problem_type == MULTI_LABEL:
        return (1 + np.tanh(exact / 2)) / 2
    likely = np.exp(exact - exact.max(-1, keepdims=True))
    return np.asarray(likely / likely.sum(-1, keepdims=True))
