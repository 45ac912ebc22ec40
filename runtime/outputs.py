"""The outputs of one call of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eptx.bundle import Task
from eptx.errors import RequestError
from eptx.manifest.names import HIDDEN, LOGITS, MULTI_LABEL, REGRESSION, SINGLE_LABEL
from eptx.runtime import spans
from eptx.runtime.spans import Answer, Entity, RowText
from eptx.runtime.spans import Array as Array


class Outputs(Mapping[str, Array]):
    """The graph outputs of one call by name, and what they mean for each row's task.

    ``outputs["logits"]`` is the array as the graph gives it, padded to the largest label count; `logits` has
    each row's own. Arrays are the caller's to change.

    Args:
        arrays: the graph outputs.
        rows: each row's task.
        request: the graph inputs that they answer.
        texts: what the rows' tokens were made of, where they were.

    Attributes:
        tasks: name of each row's task; with ``task="auto"``, the one that was inferred.
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        rows: Sequence[Task],
        request: Mapping[str, Array] | None = None,
        texts: Sequence[RowText] | None = None,
    ) -> None:
        self._arrays = dict(arrays)
        self._rows = tuple(rows)
        self._request = request or {}
        self._texts: Sequence[RowText | None] = texts or [None] * len(rows)
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
        if LOGITS not in self._arrays:
            raise RequestError(f"this bundle has no output 'logits'; it has {', '.join(self._arrays)}")
        return [row[..., : task.labels] for row, task in zip(self._arrays[LOGITS], self._rows, strict=True)]

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

    @property
    def features(self) -> list[Array]:
        """Each row's vectors of the output ``last_hidden_state``: [its own tokens, width] without those that the mask
        hides, or [patches, width] of an image.

        Raises:
            RequestError: the bundle has no such output.
        """
        if HIDDEN not in self._arrays:
            raise RequestError(f"this bundle has no output {HIDDEN!r}; it has {', '.join(self._arrays)}")
        vectors, mask = self._arrays[HIDDEN], self._request.get("attention_mask")
        if mask is None or mask.shape != vectors.shape[:2]:
            return list(vectors)
        return [row[own != 0] for row, own in zip(vectors, mask, strict=True)]

    @property
    def entities(self) -> list[list[Entity] | None]:
        """What a token classifier finds in each row, as transformers' ``token-classification`` pipeline groups tokens
        with ``aggregation_strategy="simple"``; None for a task without a head. Of arrays, an entity has tokens and no
        characters, and every token that the mask shows counts.

        Raises:
            RequestError: the bundle is no token classifier.
        """
        if self._kind() != "entities":
            raise RequestError("this bundle labels no tokens of a text, so it finds no entities")
        return [self._entities(row, logits) for row, logits in enumerate(self.logits)]

    @property
    def answers(self) -> list[Answer | None]:
        """The answer to each row's question, as transformers' ``question-answering`` pipeline gives it: the likeliest
        of at most 15 tokens in the second text of the pair. None where nothing of that text was read. Of arrays, an
        answer has tokens and no characters, and may be in every token of the highest type that the mask shows.

        Raises:
            RequestError: the bundle answers no questions, or a row is one text.
        """
        if self._kind() != "answers":
            raise RequestError("this bundle answers no questions: it has no outputs start_logits and end_logits")
        alone = next((row for row, text in enumerate(self._texts) if text is not None and not text.is_pair), None)
        if alone is not None:
            raise RequestError(f"text {alone} is no pair; an answer needs a question and the text that it is in")
        rows = zip(self[spans.START], self[spans.END], self._texts, strict=True)
        return [spans.answer(start, end, self._parts(row), text) for row, (start, end, text) in enumerate(rows)]

    def of_texts(self, texts: Sequence[RowText] | None) -> Outputs:
        """The same outputs, with what the rows' tokens were made of."""
        return Outputs(self._arrays, self._rows, self._request, texts)

    def _kind(self) -> str | None:
        return spans.kind_of(*({n: a.shape for n, a in arrays.items()} for arrays in (self._request, self._arrays)))

    def _entities(self, row: int, logits: Array) -> list[Entity] | None:
        task = self._rows[row]
        likely = _probabilities(logits, task) if task.problem_type == SINGLE_LABEL else None
        return None if likely is None else spans.entities(likely, task.label_names, self._parts(row), self._texts[row])

    def _parts(self, row: int) -> Any:
        return spans.parts_of(row, len(self._request["input_ids"][row]), self._request, self._texts[row])

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
