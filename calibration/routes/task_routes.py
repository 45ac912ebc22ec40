"""What a task's rows say of TuckA's routes: which they take, and what a frozen one of every group loses.

The rows are split in two: the even ones say what the router gives the experts of every group on average, which makes
one candidate a group; the odd ones say how far the answers by each candidate are from those by the live route. A base
that calls the router several times has a route to freeze for each call that reads the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from eptx.calibration.routes.reference_runner import Question, Reference, Reply
from eptx.errors import UsageError
from eptx.exporter.adapters.route import Frozen, Route
from eptx.runtime.measure import Answers, Drop, choose_metrics, divergence, drops
from eptx.runtime.measure.labels import label_number, label_set
from eptx.runtime.measure.metrics import as_objects

#: Digits of weights and losses: below what float32 holds, above what float64 summation varies by.
_DIGITS = 9


@dataclass(frozen=True)
class CallRoutes:
    """One call of the router.

    Attributes:
        share: of all rows, those that take each group, [k].
        mean: over all rows, what the router gives every group's experts [k, t]. deviation: the same.
        losses: of each group's candidate, how far its answers are from the live ones on rows held out: 0 to 100.
    """

    share: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    losses: tuple[float, ...]

    def to_json(self, chosen: Route) -> dict[str, Any]:
        """As JSON types, with the route that the call is frozen to."""
        return {
            "share": _rounded(self.share),
            "weights_mean": _rounded(self.mean),
            "weights_deviation": _rounded(self.deviation),
            "loss": list(self.losses),
            "chosen": chosen.group,
            "weights": list(chosen.weights),
        }


@dataclass(frozen=True)
class TaskRoutes:
    """One task.

    Attributes:
        rows: how many rows. held_out: how many of them judged.
        calls: what they say of each call of the router that routes by the data.
        chosen: the frozen routes, one for each call: those that lose least, or those that were given.
        given: whether they were given.
        error: how far the chosen routes are from the live ones, for the manifest.
        metric: the task's metric by the live routes (reference) and the frozen ones, where there are labels.
    """

    rows: int
    held_out: int
    calls: tuple[CallRoutes, ...]
    chosen: Frozen
    given: bool
    error: Mapping[str, float]
    metric: Drop | None

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        metric = self.metric
        return {
            "rows": self.rows,
            "held_out": self.held_out,
            "calls": [call.to_json(route) for call, route in zip(self.calls, self.chosen, strict=True)],
            "given": self.given,
            "chosen_loss": self.error["loss"],
            "metric": {"name": metric.metric, "live": metric.reference, "frozen": metric.found} if metric else None,
        }


def split(rows: int) -> tuple[range, range]:
    """Which rows to fit on and which to judge on: the even and the odd ones; a single row is both."""
    return range(0, rows, 2), range(1, rows, 2) or range(rows)


@dataclass
class _Candidate:
    """Frozen routes on rows that were held out, against the live ones.

    Attributes:
        route: the routes, one for each call.
        replies: to the rows.
        largest: the largest difference of each row's output. means: the mean one.
    """

    route: Frozen
    replies: list[Reply] = field(default_factory=list)
    largest: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)

    def add(self, frozen: Reply, live: Reply) -> None:
        """One more row."""
        difference = np.abs(frozen.output - live.output)
        self.largest.append(float(difference.max()))
        self.means.append(float(difference.mean()))
        self.replies.append(_light(frozen))


@dataclass(frozen=True)
class _Judge:
    """The rows that are held out, and what their answers are compared with."""

    reference: Reference
    questions: Sequence[Question]
    labels: np.ndarray | None

    def losses(self, candidates: Sequence[_Candidate]) -> tuple[list[Reply], list[float]]:
        """Asks by every route: the live replies, and what each candidate loses."""
        live = [self._ask(question, candidates) for question in self.questions]
        task, answers = self.questions[0].row.task, self.answers(live)
        others = [self.answers(candidate.replies) for candidate in candidates]
        return live, [round(divergence(answers, other, task), _DIGITS) for other in others]

    def answers(self, replies: Sequence[Reply]) -> Answers:
        """Replies to all rows as they are compared."""
        task = self.questions[0].row.task
        answers, confidence = [reply.answer for reply in replies], [reply.confidence for reply in replies]
        return Answers({task: replies[0].kind}, {task: answers}, {task: self.labels}, {task: confidence})

    def _ask(self, question: Question, candidates: Sequence[_Candidate]) -> Reply:
        live = self.reference.ask(question)
        for candidate in candidates:
            candidate.add(self.reference.ask(question, candidate.route), live)
        return _light(live)


def study_task(
    reference: Reference, questions: Sequence[Question], groups: int, given: Frozen | None, metric: Mapping[str, str]
) -> TaskRoutes:
    """Asks a task's rows by the live routes and by frozen ones.

    Where the router is called more than once, each call in turn takes the group that loses least, beside what the
    others have by then: the group that most rows take, or what was chosen for them before.

    Args:
        reference: whom to ask.
        questions: the rows.
        groups: k.
        given: routes to judge beside those that are found, which are then the chosen ones.
        metric: of the task, where it is not the usual one.

    Raises:
        DataError: a label is not one that the task has.
        UsageError: the given routes are not as many as the calls.
    """
    fit, held_out = split(len(questions))
    fitted = [_light(reference.ask(questions[index])) for index in fit]
    labels = _labels(reference, questions, fitted[0])
    judge = _Judge(
        reference, [questions[index] for index in held_out], labels[list(held_out)] if labels is not None else None
    )
    weights = np.mean([_affinity(reply) for reply in fitted], axis=0).round(_DIGITS)
    taken = np.stack([reply.groups for reply in fitted])
    chosen = tuple(
        _route(weights[call], int(np.bincount(taken[:, call], minlength=groups).argmax()))
        for call in range(len(weights))
    )
    losses = []
    for call in range(len(weights)):
        tried = [_Candidate(_with(chosen, call, _route(weights[call], group))) for group in range(groups)]
        live, found = judge.losses(tried)
        best, loss = tried[int(np.argmin(found))], min(found)
        chosen = best.route
        losses.append(tuple(found))
    if given is not None:
        if len(given) != len(chosen):
            raise UsageError(
                f"--route gives {len(given)} routes; the router routes {len(chosen)} times by the data in this base"
            )
        best = _Candidate(given)
        _, (loss,) = judge.losses([best])
    (drop,) = drops(
        judge.answers(live),
        judge.answers(best.replies),
        choose_metrics(judge.answers(live).kinds, metric),
        intervals=False,
    )
    everything = fitted if len(questions) == 1 else [*fitted, *live]
    return TaskRoutes(
        rows=len(questions),
        held_out=len(held_out),
        calls=tuple(_call(everything, call, found) for call, found in enumerate(losses)),
        chosen=best.route,
        given=given is not None,
        error=_error(best, live, loss),
        metric=drop if drop.labelled else None,
    )


def _route(weights: np.ndarray, group: int) -> Route:
    return Route(group, tuple(weights[group].tolist()))


def _with(routes: Frozen, call: int, route: Route) -> Frozen:
    return (*routes[:call], route, *routes[call + 1 :])


def _call(replies: Sequence[Reply], call: int, losses: tuple[float, ...]) -> CallRoutes:
    affinity = np.stack([_affinity(reply)[call] for reply in replies])
    taken = np.bincount([int(reply.groups[call]) for reply in replies], minlength=affinity.shape[1])
    return CallRoutes(taken / len(replies), affinity.mean(0), affinity.std(0), losses)


def _error(chosen: _Candidate, live: Sequence[Reply], loss: float) -> dict[str, float]:
    """Of rows that were held out; groups agree as the share of the calls of all rows that do."""
    pairs = list(zip(chosen.replies, live, strict=True))
    groups = np.array([route.group for route in chosen.route])
    return {
        "rows": len(live),
        "loss": loss,
        "group_agreement": float(np.mean([reply.groups == groups for reply in live])),
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


def _affinity(reply: Reply) -> np.ndarray:
    assert reply.affinity is not None
    return reply.affinity


def _light(reply: Reply) -> Reply:
    """Without the output, which may be as wide as a vocabulary."""
    return replace(reply, output=np.zeros(0))


def _rounded(array: np.ndarray) -> Any:
    return np.round(array, _DIGITS).tolist()
