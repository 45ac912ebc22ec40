"""What a task's rows say of TuckA's routes: which they take, and what a frozen one of every group loses.

The rows are split in two: the even ones say what the router gives the experts of every group on average, which makes
one candidate a group; the odd ones say how far the answers by each candidate are from those by the live route.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from eptx.calibration.asking import Question, Reference, Reply
from eptx.exporter.route import Route
from eptx.runtime.measure import Answers, Drop, choose_metrics, divergence, drops
from eptx.runtime.measure.labels import label_number, label_set
from eptx.runtime.measure.metrics import as_objects

#: Digits of weights and losses: below what float32 holds, above what float64 summation varies by.
_DIGITS = 9


@dataclass(frozen=True)
class TaskRoutes:
    """One task.

    Attributes:
        rows: how many rows. held_out: how many of them judged.
        share: of all rows, those that take each group, [k].
        mean: over all rows, what the router gives every group's experts [k, t]. deviation: the same.
        losses: of each group's candidate, how far its answers are from the live ones on rows held out: 0 to 100.
        chosen: the frozen route: the candidate that loses least, or the one that was given.
        given: whether it was given.
        error: how far the chosen route is from the live one, for the manifest.
        metric: the task's metric by the live route (reference) and the frozen one, where there are labels.
    """

    rows: int
    held_out: int
    share: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    losses: tuple[float, ...]
    chosen: Route
    given: bool
    error: Mapping[str, float]
    metric: Drop | None

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        metric = self.metric
        return {
            "rows": self.rows,
            "held_out": self.held_out,
            "share": _rounded(self.share),
            "weights_mean": _rounded(self.mean),
            "weights_deviation": _rounded(self.deviation),
            "loss": list(self.losses),
            "chosen": self.chosen.group,
            "weights": list(self.chosen.weights),
            "given": self.given,
            "chosen_loss": self.error["loss"],
            "metric": {"name": metric.metric, "live": metric.reference, "frozen": metric.found} if metric else None,
        }


def split(rows: int) -> tuple[range, range]:
    """Which rows to fit on and which to judge on: the even and the odd ones; a single row is both."""
    return range(0, rows, 2), range(1, rows, 2) or range(rows)


@dataclass
class _Candidate:
    """A frozen route on rows that were held out, against the live one.

    Attributes:
        route: the route.
        replies: to the rows.
        largest: the largest difference of each row's output. means: the mean one.
    """

    route: Route
    replies: list[Reply] = field(default_factory=list)
    largest: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)

    def add(self, frozen: Reply, live: Reply) -> None:
        """One more row."""
        difference = np.abs(frozen.output - live.output)
        self.largest.append(float(difference.max()))
        self.means.append(float(difference.mean()))
        self.replies.append(_light(frozen))


def study_task(
    reference: Reference, questions: Sequence[Question], groups: int, given: Route | None, metric: Mapping[str, str]
) -> TaskRoutes:
    """Asks a task's rows by the live route and by frozen ones.

    Args:
        reference: whom to ask.
        questions: the rows.
        groups: k.
        given: a route to judge beside those that are found, which is then the chosen one.
        metric: of the task, where it is not the usual one.

    Raises:
        DataError: a label is not one that the task has.
    """
    fit, held_out = split(len(questions))
    fitted = [_light(reference.ask(questions[index])) for index in fit]
    labels = _labels(reference, questions, fitted[0])
    judged = labels[list(held_out)] if labels is not None else None
    candidates = _candidates(fitted, groups, given)
    live = [_judge(reference, questions[index], candidates) for index in held_out]
    task = questions[0].row.task
    answers = _answers(task, live, judged)
    others = [_answers(task, candidate.replies, judged) for candidate in candidates]
    losses = [round(divergence(answers, other, task), _DIGITS) for other in others]
    best = groups if given is not None else int(np.argmin(losses))
    (drop,) = drops(answers, others[best], choose_metrics(answers.kinds, metric), intervals=False)
    everything = fitted if len(questions) == 1 else [*fitted, *live]
    affinity = np.stack([_affinity(reply) for reply in everything])
    return TaskRoutes(
        rows=len(questions),
        held_out=len(held_out),
        share=np.bincount([reply.group for reply in everything], minlength=groups) / len(everything),
        mean=affinity.mean(0),
        deviation=affinity.std(0),
        losses=tuple(losses[:groups]),
        chosen=candidates[best].route,
        given=given is not None,
        error=_error(candidates[best], live, losses[best]),
        metric=drop if drop.labelled else None,
    )


def _candidates(fitted: Sequence[Reply], groups: int, given: Route | None) -> list[_Candidate]:
    """One for every group, and behind them a route that was given."""
    weights = np.mean([_affinity(reply) for reply in fitted], axis=0).round(_DIGITS)
    found = [_Candidate(Route(group, tuple(weights[group].tolist()))) for group in range(groups)]
    return found + ([_Candidate(given)] if given is not None else [])


def _judge(reference: Reference, question: Question, candidates: Sequence[_Candidate]) -> Reply:
    """Asks by every route; the live reply."""
    live = reference.ask(question)
    for candidate in candidates:
        candidate.add(reference.ask(question, candidate.route), live)
    return _light(live)


def _error(chosen: _Candidate, live: Sequence[Reply], loss: float) -> dict[str, float]:
    """Of rows that were held out."""
    pairs = list(zip(chosen.replies, live, strict=True))
    return {
        "rows": len(live),
        "loss": loss,
        "group_agreement": sum(reply.group == chosen.route.group for reply in live) / len(live),
        "argmax_agreement": sum(np.array_equal(frozen.best, reply.best) for frozen, reply in pairs) / len(live),
        "max_abs": round(max(chosen.largest), _DIGITS),
        "mean_abs": round(float(np.mean(chosen.means)), _DIGITS),
        "largest_output": round(max(reply.largest for reply in live), _DIGITS),
    }


def _labels(reference: Reference, questions: Sequence[Question], live: Reply) -> np.ndarray | None:
    """The rows' labels as answers are compared with them; None where a row has none, or the answers have none."""
    kind, row = live.kind, questions[0].row
    if kind == "vector" or any(question.row.label is None for question in questions):
        return None
    if kind != "tokens":
        task = reference.task(row.task, len(live.answer))
        if kind == "sets":
            return np.array([label_set(question.row, task, task.labels) for question in questions])
        return np.array([label_number(question.row, task, kind) for question in questions])
    if not all(question.wanted for question in questions):
        return None
    return as_objects([question.wanted for question in questions])


def _answers(task: str, replies: Sequence[Reply], labels: np.ndarray | None) -> Answers:
    answers, confidence = [reply.answer for reply in replies], [reply.confidence for reply in replies]
    return Answers({task: replies[0].kind}, {task: answers}, {task: labels}, {task: confidence})


def _affinity(reply: Reply) -> np.ndarray:
    assert reply.affinity is not None
    return reply.affinity


def _light(reply: Reply) -> Reply:
    """Without the output, which may be as wide as a vocabulary."""
    return replace(reply, output=np.zeros(0))


def _rounded(array: np.ndarray) -> Any:
    return np.round(array, _DIGITS).tolist()
