"""Answers: how often the bundle's agree with the reference's, and how good they are where labels are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eptx.bundle import Manifest
from eptx.errors import DataError
from eptx.exporter.validation.inputs.batch import ANSWER_IDS, Batch
from eptx.exporter.validation.reference.expected import Expected
from eptx.manifest.names import MULTI_LABEL
from eptx.runtime.measure.labels import label_set
from eptx.runtime.measure.metrics import METRICS
from eptx.runtime.measure.rows import Row

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


@dataclass
class Greedy:
    """How often the bundle chooses the token that the reference chooses, of answers to which the reference's are fed.

    Attributes:
        tokens: how many the reference chose. equal: those of them that the bundle chooses too.
        first: of the first that it does not, where it is, and by how much the reference prefers its own.
    """

    tokens: int = 0
    equal: int = 0
    first: dict[str, Any] | None = None

    def add(self, found: np.ndarray, exact: np.ndarray, batch: Batch, row: int) -> None:
        """One row's logits [positions, tokens] of both."""
        prompt, kept = batch.prompt, batch.kept
        assert prompt is not None and kept is not None
        last = prompt - 1 if ANSWER_IDS in batch.arrays else int(np.flatnonzero(kept[row, :prompt])[-1])
        for at, position in enumerate([last, *range(prompt, batch.length - 1)]):
            own, other = int(exact[position].argmax()), int(found[position].argmax())
            self.tokens, self.equal = self.tokens + 1, self.equal + (own == other)
            if own != other and self.first is None:
                margin = float(exact[position, own] - exact[position, other])
                self.first = {
                    "batch": batch.name,
                    "row": row,
                    "token": at,
                    "reference": own,
                    "bundle": other,
                    "margin": margin,
                }

    def summary(self) -> dict[str, Any]:
        """As JSON types."""
        return {"tokens": self.tokens, "agreement": self.equal / self.tokens, "first_disagreement": self.first}


@dataclass
class Answers:
    """Logits of both, per task; empty where the bundle has no logits."""

    _by_task: dict[str, list[_Answer]] = field(default_factory=dict)
    _greedy: dict[str, Greedy] = field(default_factory=dict)

    def add(self, expected: Expected, outputs: dict[str, np.ndarray], manifest: Manifest) -> None:
        """Takes the judged rows of one batch."""
        if LOGITS not in expected.outputs or LOGITS not in outputs:
            return
        exact, found = expected.outputs[LOGITS], outputs[LOGITS]
        if exact.shape[:-1] != found.shape[:-1]:
            return  # not the same questions; that they differ is told where outputs are compared
        labels = expected.batch.labels or (None,) * expected.batch.rows
        kept = expected.batch.kept
        for row in np.flatnonzero(expected.judged):
            task = expected.batch.tasks[row]
            width = _width(manifest, task, found.shape[-1])
            one = [(found[row], exact[row])]
            if exact.ndim == 3:
                masked = kept is not None and kept.shape[1] == exact.shape[1]
                positions = np.flatnonzero(kept[row]) if kept is not None and masked else range(exact.shape[1])
                one = [(found[row, position], exact[row, position]) for position in positions]
            label = labels[row] if exact.ndim == 2 else None
            for f, e in one if width else ():
                problem = next((t.problem_type for t in manifest.tasks if t.name == task), None)
                known = _label_set if problem == MULTI_LABEL else _label_number
                one_answer = _Answer(f[:width], e[:width], known(label, manifest, task), problem)
                self._by_task.setdefault(task, []).append(one_answer)
            if expected.batch.greedy:
                self._greedy.setdefault(task, Greedy()).add(found[row], exact[row], expected.batch, int(row))

    def summary(self, task: str) -> dict[str, Any]:
        """``argmax_agreement``, ``metric`` and ``greedy``, where there are logits, labels and answers."""
        answers = self._by_task.get(task, [])
        wide = [answer for answer in answers if len(answer.exact) > 1 or answer.sets]
        agreement = float(np.mean([_agree(answer) for answer in wide])) if wide else None
        metric = _metric([a for a in answers if a.label is not None])
        greedy = self._greedy[task].summary() if task in self._greedy else None
        return {"argmax_agreement": agreement, "metric": metric, "greedy": greedy}


def _agree(answer: _Answer) -> bool:
    if answer.sets:
        return bool(((answer.found > 0) == (answer.exact > 0)).all())
    return bool(answer.found.argmax() == answer.exact.argmax())


def _width(manifest: Manifest, task: str, padded: int) -> int:
    """How many of a row's logits count."""
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
    """Labels by name or number, or one decimal for each, as bool [labels]; None where they are none of the task's."""
    row = Row(task, label=tuple(label) if isinstance(label, list) else label)
    spec = next(t for t in manifest.tasks if t.name == task)
    width = next((o.shape[-1] for o in manifest.outputs if o.name == LOGITS), None)
    count = spec.labels if spec.labels is not None else width
    try:
        return None if label is None else label_set(row, spec, count if isinstance(count, int) else None)
    except DataError:
        return None


def _metric(answers: list[_Answer]) -> dict[str, Any] | None:
    """Accuracy, the F1 of several labels, or of a value the correlation; of the bundle and of the reference."""
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
    return {"name": name, "rows": len(answers), "bundle": values[0], "reference": values[1]}
