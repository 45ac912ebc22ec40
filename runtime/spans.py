"""What a bundle says of parts of a text: the entities of a token classifier, the answer of question answering.

Both are what transformers' pipelines say: ``token-classification`` with ``aggregation_strategy="simple"``, and
``question-answering`` with its defaults.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from eptx.bundle import Manifest
from eptx.manifest.names import LOGITS, SINGLE_LABEL

Array = npt.NDArray[np.generic]
_Floats = npt.NDArray[np.float64]
_Shapes = Mapping[str, Sequence[str | int]]
_Parts = npt.NDArray[np.int64]

#: The outputs of question answering: how likely each token begins the answer, and how likely it ends it.
START, END = "start_logits", "end_logits"
_IDS, _MASK, _TYPES = "input_ids", "attention_mask", "token_type_ids"
#: The parts of a row that are of no text.
PADDING, SPECIAL = -2, -1
#: The label of what is no entity.
_OUTSIDE = "O"
#: The most tokens of an answer, as in transformers' pipeline.
_LONGEST = 15


@dataclass(frozen=True)
class Entity:
    """Tokens side by side that have one label.

    Attributes:
        label: its name, without ``B-`` and ``I-``; its index where the bundle has no names.
        score: the mean of its tokens' probabilities.
        word: the tokens as the tokenizer writes them. None of arrays.
        start, end: the first character of its text, and the one behind the last. None of arrays.
        part: 1 in the second text of a pair, else 0.
        tokens: the first token of its row, and the one behind the last; padding counts.
    """

    label: str | int
    score: float
    word: str | None
    start: int | None
    end: int | None
    part: int
    tokens: tuple[int, int]


@dataclass(frozen=True)
class Answer:
    """The likeliest answer in the second text of a pair, in whole words.

    Attributes:
        text: the answer. None of arrays.
        score: the probability that it begins and ends there.
        start, end: the first character of the second text, and the one behind the last. None of arrays.
        tokens: the first token of its row, and the one behind the last; padding counts.
    """

    text: str | None
    score: float
    start: int | None
    end: int | None
    tokens: tuple[int, int]


class RowText(Protocol):
    """The text, or the pair of texts, that a row's tokens were made of. Tokens are counted in the row, with padding."""

    @property
    def is_pair(self) -> bool:
        """Whether there are two texts."""

    def parts(self, length: int) -> _Parts:
        """Of which text each of a row's tokens is: 0, 1, `SPECIAL` or `PADDING`."""

    def word(self, tokens: Sequence[int]) -> str:
        """Some tokens as the tokenizer writes them."""

    def characters(self, first: int, last: int) -> tuple[int, int]:
        """Where two tokens, and what is between, stand in their text."""

    def whole_words(self, first: int, last: int) -> tuple[int, int]:
        """The same with the rest of their words."""

    def excerpt(self, part: int, start: int, end: int) -> str:
        """Some characters of a text."""


def kind_of(inputs: _Shapes, outputs: _Shapes) -> Literal["entities", "answers"] | None:
    """What a model of these tensors says of parts of a text, if it says something of every token.

    Args:
        inputs: name -> shape, with sizes or with the names of dimensions.
        outputs: the same.
    """
    tokens = tuple(inputs.get(_IDS, ()))
    ranks = {name: len(shape) for name, shape in outputs.items() if tokens and tuple(shape[:2]) == tokens}
    if ranks.get(START) == ranks.get(END) == 2:
        return "answers"
    return "entities" if ranks.get(LOGITS) == 3 else None


def kind_of_bundle(manifest: Manifest) -> Literal["entities", "answers"] | None:
    """The same of a bundle; a language model's logits of every token are of no entities."""
    kind = kind_of(*({spec.name: spec.shape for spec in specs} for specs in (manifest.inputs, manifest.outputs)))
    labels = any(task.problem_type == SINGLE_LABEL for task in manifest.tasks)
    return None if kind == "entities" and not labels else kind


def parts_of(row: int, length: int, request: Mapping[str, Array], text: RowText | None) -> _Parts:
    """Of which text each token of a row is; without texts the mask and the token types say it."""
    if text is not None:
        return text.parts(length)
    shown = request[_MASK][row] if _MASK in request else np.ones(length)
    types = request[_TYPES][row] if _TYPES in request else np.zeros(length)
    return np.where(shown != 0, types != 0, PADDING)


def entities(likely: _Floats, names: Sequence[str] | None, parts: _Parts, text: RowText | None) -> list[Entity]:
    """A row's entities, from the left to the right.

    Args:
        likely: the probability of each label [length, labels].
        names: of the labels.
        parts: of which text each token is.
        text: what the tokens were made of.
    """
    best = likely.argmax(-1)
    called = [names[i] if names else int(i) for i in best]
    found = []
    for tokens in _groups(called, parts):
        first, last, label = tokens[0], tokens[-1], called[tokens[0]]
        shown = label.split("-", 1)[-1] if isinstance(label, str) else label
        if shown == _OUTSIDE:
            continue
        start, end = text.characters(first, last) if text is not None else (None, None)
        word = text.word(tokens) if text is not None else None
        score = float(likely[tokens, best[tokens]].mean())
        found.append(Entity(shown, score, word, start, end, int(parts[first]), (first, last + 1)))
    return found


def _groups(called: Sequence[str | int], parts: _Parts) -> Iterator[list[int]]:
    """Neighbors of one label in one text: ``B-`` begins anew, and special tokens between them do not count."""
    group: list[int] = []
    for token in np.flatnonzero(parts >= 0).tolist():
        begins, label = _tag(called[token])
        if group and (begins or label != _tag(called[group[-1]])[1] or parts[token] != parts[group[-1]]):
            yield group
            group = []
        group.append(token)
    if group:
        yield group


def _tag(label: str | int) -> tuple[bool, str | int]:
    """Whether a label begins an entity, and which."""
    if isinstance(label, str) and label.startswith(("B-", "I-")):
        return label[0] == "B", label[2:]
    return False, label


def answer(start: Array, end: Array, parts: _Parts, text: RowText | None) -> Answer | None:
    """The likeliest answer; None where nothing of the second text was read.

    Args:
        start: the logits of each token as the first one [length].
        end: as the last one.
        parts: of which text each token is; of arrays, those of the last part may be in the answer.
        text: what the tokens were made of.
    """
    inside = parts == (1 if text is not None else parts.max())
    # A special token at the front stands for "no answer": it has its share of the probability, and is in no answer.
    first = int(np.argmax(parts != PADDING))
    counted = inside.copy()
    counted[first] = text is None or parts[first] == SPECIAL
    inside[first] = False
    if not inside.any():
        return None
    begins, ends = (_softmax(logits, counted) * inside for logits in (start, end))
    steps = min(_LONGEST, len(parts))
    scores = np.stack([begins * np.append(ends[step:], np.zeros(step)) for step in range(steps)], axis=1)
    head, more = divmod(int(scores.argmax()), steps)
    place = (head, head + more + 1)
    score = float(scores[head, more])
    if text is None:
        return Answer(None, score, None, None, place)
    left, right = text.whole_words(head, head + more)
    return Answer(text.excerpt(1, left, right), score, left, right, place)


def _softmax(logits: Array, counted: npt.NDArray[np.bool_]) -> _Floats:
    """A softmax over the tokens that count."""
    exact = np.where(counted, logits.astype(np.float64), -np.inf)
    powers = np.exp(exact - exact.max())
    return np.asarray(powers / powers.sum())


def as_json(said: Entity | Answer) -> dict[str, Any]:
    """By name, with None for the NaN that JSON lacks."""
    given = asdict(said)
    return {**given, "score": said.score if math.isfinite(said.score) else None}
