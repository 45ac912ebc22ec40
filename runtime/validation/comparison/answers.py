"""Logits as answers: how often the bundle's are the reference's, and how good both are on labelled rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eptx.bundle import Manifest
from eptx.errors import DataError
from eptx.manifest.names import MULTI_LABEL
from eptx.runtime.measure.labels import label_set
from eptx.runtime.measure.metrics import METRICS
from eptx.runtime.measure.rows import Row
from eptx.runtime.validation.batch import ANSWER_IDS, Batch
from eptx.runtime.validation.expected import Expected
from eptx.runtime.validation.values import Values, vector

LOGITS = "logits"


@dataclass(frozen=True)
class _Answer:
    """One row's (or, of a language model, one position's) logits from the bundle and the reference."""

    found: np.ndarray
    exact: np.ndarray
    label: Any
    problem: str | None = None

    @property
    def sets(self) -> bool:
        """Whether each label counts by itself."""
        return self.problem == MULTI_LABEL


@dataclass(frozen=True)
class Metric:
    """How good answers to labelled rows are.

    Attributes:
        name: ``accuracy``, ``f1_micro`` or ``pearson``.
        rows: how many.
        bundle, reference: the metric of either.
    """

    name: str
    rows: int
    bundle: float
    reference: float


@dataclass(frozen=True)
class Disagreement:
    """A token that the bundle chooses otherwise than the reference.

    Attributes:
        batch: its name. row, token: which of them, from 0.
        reference, bundle: the token that either chooses.
        margin: by how much the reference's logit of its own token is larger; infinite where a proof does not say, as
            the other token is not among the largest.
    """

    batch: str
    row: int
    token: int
    reference: int
    bundle: int
    margin: float


@dataclass(frozen=True)
class GreedyAgreement:
    """How often the bundle chooses the token that the reference chooses, after the same tokens.

    Attributes:
        tokens: how many the reference chose.
        agreement: the share of them that the bundle chooses too.
        first_disagreement: the first that it does not.
    """

    tokens: int
    agreement: float
    first_disagreement: Disagreement | None


@dataclass
class _GreedyCount:
    tokens: int = 0
    equal: int = 0
    first: Disagreement | None = None

    def add(self, found: np.ndarray, exact: Values, batch: Batch, row: int) -> None:
        """One row's logits: what was found [positions, tokens], and what is exact [rows, positions, tokens]."""
        prompt, kept = batch.prompt, batch.kept
        assert prompt is not None
        read = kept if ANSWER_IDS not in batch.arrays else None  # an answer begins with as many tokens in every row
        last = prompt - 1 if read is None else int(np.flatnonzero(read[row, :prompt])[-1])
        for at, position in enumerate([last, *range(prompt, batch.length - 1)]):
            wanted = vector(exact, batch, row, position)
            own, other = int(wanted.argmax()), int(found[position].argmax())
            self.tokens, self.equal = self.tokens + 1, self.equal + (own == other)
            if own != other and self.first is None:
                margin = float(wanted[own] - wanted[other])
                self.first = Disagreement(batch.name, row, at, own, other, margin)


@dataclass
class Answers:
    """Logits of both, per task; empty where the bundle has no logits."""

    _by_task: dict[str, list[_Answer]] = field(default_factory=dict)
    _greedy: dict[str, _GreedyCount] = field(default_factory=dict)

    def add(self, expected: Expected[Any], outputs: dict[str, np.ndarray], manifest: Manifest) -> None:
        """Adds the compared rows of one batch."""
        if LOGITS not in expected.outputs or LOGITS not in outputs:
            return
        exact, found = expected.outputs[LOGITS], outputs[LOGITS]
        if exact.shape[:-1] != found.shape[:-1]:
            return  # the comparison of outputs reports the shape
        labels = expected.batch.labels or (None,) * expected.batch.rows
        kept = expected.batch.kept
        for row in np.flatnonzero(expected.compared):
            task = expected.batch.tasks[row]
            width = _width(manifest, task, found.shape[-1])
            one = [(found[row], vector(exact, expected.batch, int(row)))] if exact.ndim == 2 else []
            if exact.ndim == 3:
                masked = kept is not None and kept.shape[1] == exact.shape[1]
                positions = np.flatnonzero(kept[row]) if kept is not None and masked else range(exact.shape[1])
                one = [
                    (found[row, position], vector(exact, expected.batch, int(row), int(position)))
                    for position in positions
                ]
            label = labels[row] if exact.ndim == 2 else None
            for f, e in one if width else ():
                problem = next((t.problem_type for t in manifest.tasks if t.name == task), None)
                known = _label_set if problem == MULTI_LABEL else _label_number
                one_answer = _Answer(f[:width], e[:width], known(label, manifest, task), problem)
                self._by_task.setdefault(task, []).append(one_answer)
            if expected.batch.greedy:
                self._greedy.setdefault(task, _GreedyCount()).add(found[row], exact, expected.batch, int(row))

    def argmax_agreement(self, task: str) -> float | None:
        """The share of a task's answers that are the reference's; None without logits."""
        wide = [answer for answer in self._by_task.get(task, []) if len(answer.exact) > 1 or answer.sets]
        return float(np.mean([_agree(answer) for answer in wide])) if wide else None

    def metric(self, task: str) -> Metric | None:
        """The metric of a task's labelled rows; None of fewer than two."""
        return _metric([answer for answer in self._by_task.get(task, []) if answer.label is not None])

    def greedy(self, task: str) -> GreedyAgreement | None:
        """How far a task's greedy tokens agree; None without any."""
        count = self._greedy.get(task)
        return None if count is None else GreedyAgreement(count.tokens, count.equal / count.tokens, count.first)


def _agree(answer: _Answer) -> bool:
    if answer.sets:
        return bool(((answer.found > 0) == (answer.exact > 0)).all())
    return bool(answer.found.argmax() == answer.exact.argmax())


def _width(manifest: Manifest, task: str, padded: int) -> int:
    """How many of a row's logits are its task's."""
    labels = next((t.labels for t in manifest.tasks if t.name == task), None)
    return padded if labels is None else labels


def _label_number(label: Any, manifest: Manifest, task: str) -> float | None:
    """A label as the index of its logit (or the value to predict); names are looked up."""
    if isinstance(label, str):
        names = next((t.label_names for t in manifest.tasks if t.name == task), None) or ()
        return float(names.index(label)) if label in names else None
    if isinstance(label, bool) or not isinstance(label, int | float):
        return None
    return float(label)


def _label_set(label: Any, manifest: Manifest, task: str) -> np.ndarray | None:
    """Labels by name or number, or one number per label, as bool [labels]; None where the task has no such label."""
    row = Row(task, label=tuple(label) if isinstance(label, list) else label)
    spec = next(t for t in manifest.tasks if t.name == task)
    width = next((o.shape[-1] for o in manifest.outputs if o.name == LOGITS), None)
    count = spec.labels if spec.labels is not None else width
    try:
        return None if label is None else label_set(row, spec, count if isinstance(count, int) else None)
    except DataError:
        return None


def _metric(answers: list[_Answer]) -> Metric | None:
    """Accuracy; the F1 score for several labels at once; the correlation for a single value."""
    if len(answers) < 2:
        return None
    labels = np.array([answer.label for answer in answers])
    found, exact = ([getattr(answer, name) for answer in answers] for name in ("found", "exact"))
    if answers[0].sets:
        name = "f1_micro"
        values = [METRICS[name][1](np.stack(side) > 0, labels) for side in (found, exact)]
    elif len(answers[0].exact) == 1:
        values = [METRICS["pearson"][1](np.array([v[0] for v in side]), labels) for side in (found, exact)]
        name = "pearson"
    else:
        values = [
            float(np.mean([v.argmax() == label for v, label in zip(side, labels, strict=True)]))
            for side in (found, exact)
        ]
        name = "accuracy"
    return Metric(name, len(answers), *values)
