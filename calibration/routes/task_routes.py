"""What a task's rows say of its routes: which they take, and how far a frozen one moves the answers.

The even rows give the mean weights of every group's experts, which makes one candidate for each group. The odd rows
are held out: they measure the divergence of each candidate's answers from those by the live route. A base that calls
the router several times has a route to freeze for each call that reads the data, and so has every module where each has
a router of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from eptx.calibration.routes.reference_runner import EncodedRow, Prediction, ReferenceRunner
from eptx.errors import UsageError
from eptx.exporter.adapters.routing.route import Frozen, Route
from eptx.exporter.adapters.routing.routers import Router
from eptx.runtime.measure import Answers, Drop, choose_metrics, divergence, drops
from eptx.runtime.measure.labels import label_number, label_set
from eptx.runtime.measure.metrics import as_objects

#: Digits of weights and divergences: fewer than float32 holds would lose some, and float64 sums vary below these.
_DIGITS = 9


@dataclass(frozen=True)
class CallRoutes:
    """One call of the router.

    Attributes:
        route: what the call is frozen to.
        share: of all rows, those that take each group, [k].
        mean: over all rows, the router's weights for every group's experts [k, t]. deviation: the standard one.
        divergences: for each group's candidate, of its answers to held-out rows from the live ones: 0 to 100.
    """

    route: Route
    share: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    divergences: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "share": _rounded(self.share),
            "weights_mean": _rounded(self.mean),
            "weights_deviation": _rounded(self.deviation),
            "divergence": list(self.divergences),
            "chosen": self.route.group,
            "weights": list(self.route.weights),
        }


@dataclass(frozen=True)
class TaskRoutes:
    """One task.

    Attributes:
        rows: how many rows. held_out: how many of them measured the candidates.
        calls: what they say of each call of the router that routes by the data, or of each module's router.
        given: whether the user gave the frozen routes; otherwise they are those with the smallest divergence.
        error: how far the frozen routes are from the live ones, for the manifest.
        metric: the task's metric by the live routes (reference) and the frozen ones, where there are labels.
    """

    rows: int
    held_out: int
    calls: tuple[CallRoutes, ...]
    given: bool
    error: Mapping[str, float]
    metric: Drop | None

    @property
    def chosen(self) -> Frozen:
        """The frozen routes, one for each call."""
        return tuple(call.route for call in self.calls)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        metric = self.metric
        return {
            "rows": self.rows,
            "held_out": self.held_out,
            "calls": [call.to_json() for call in self.calls],
            "given": self.given,
            "chosen_divergence": self.error["divergence"],
            "metric": {"name": metric.metric, "live": metric.reference, "frozen": metric.found} if metric else None,
        }


def split(rows: int) -> tuple[range, range]:
    """Which rows give the weights and which are held out: the even and the odd ones; a single row does both."""
    return range(0, rows, 2), range(1, rows, 2) or range(rows)


@dataclass
class _Candidate:
    """Frozen routes on held-out rows, against the live ones.

    Attributes:
        route: the routes, one for each call.
        predictions: for the rows.
        largest: the largest difference of each row's output. means: the mean one.
    """

    route: Frozen
    predictions: list[Prediction] = field(default_factory=list)
    largest: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)

    def add(self, frozen: Prediction, live: Prediction) -> None:
        """One more row."""
        difference = np.abs(frozen.output - live.output)
        self.largest.append(float(difference.max()))
        self.means.append(float(difference.mean()))
        self.predictions.append(_without_output(frozen))


@dataclass(frozen=True)
class _HeldOut:
    """The rows that are held out, and their labels."""

    runner: ReferenceRunner
    rows: Sequence[EncodedRow]
    labels: np.ndarray | None

    def divergences(self, candidates: Sequence[_Candidate]) -> tuple[list[Prediction], list[float]]:
        """Runs the rows by every route: the live predictions, and each candidate's divergence."""
        live = [self._run(row, candidates) for row in self.rows]
        task, answers = self.rows[0].row.task, self.answers(live)
        others = [self.answers(candidate.predictions) for candidate in candidates]
        return live, [round(divergence(answers, other, task), _DIGITS) for other in others]

    def answers(self, predictions: Sequence[Prediction]) -> Answers:
        """Predictions for all rows as they are compared."""
        task, kind = self.rows[0].row.task, predictions[0].kind
        answers, confidence = [each.answer for each in predictions], [each.confidence for each in predictions]
        return Answers({task: kind}, {task: answers}, {task: self.labels}, {task: confidence})

    def _run(self, row: EncodedRow, candidates: Sequence[_Candidate]) -> Prediction:
        live = self.runner.run(row)
        for candidate in candidates:
            candidate.add(self.runner.run(row, candidate.route), live)
        return _without_output(live)


def study_task(
    runner: ReferenceRunner, rows: Sequence[EncodedRow], router: Router, given: Frozen | None, metric: Mapping[str, str]
) -> TaskRoutes:
    """Runs a task's rows by the live routes and by frozen ones.

    Where the base calls the router several times, each call in turn takes the group with the smallest divergence. The
    other calls keep their group meanwhile: the one chosen before, or at first the one that most rows take.

    Args:
        runner: the reference.
        rows: of the task.
        router: what routes. Of the mean weights, a candidate has what it keeps.
        given: the user's routes, which are then the frozen ones; the candidates are measured all the same.
        metric: of the task, where it is not the usual one.

    Raises:
        DataError: a label is not one that the task has.
        UsageError: the given routes are not as many as the calls.
    """
    groups, (fit, odd) = router.groups, split(len(rows))
    fitted = [_without_output(runner.run(rows[index])) for index in fit]
    labels = _labels(runner, rows, fitted[0])
    held_out = _HeldOut(runner, [rows[index] for index in odd], labels[list(odd)] if labels is not None else None)
    weights = np.mean([_affinity(each) for each in fitted], axis=0).round(_DIGITS)
    taken = np.stack([each.groups for each in fitted])
    chosen = tuple(
        _route(router, weights[call], int(np.bincount(taken[:, call], minlength=groups).argmax()))
        for call in range(len(weights))
    )
    divergences = []
    # with one group there is one candidate, whichever call is looked at
    for call in range(len(weights) if groups > 1 else 1):
        tried = [
            _Candidate((*chosen[:call], _route(router, weights[call], group), *chosen[call + 1 :]))
            for group in range(groups)
        ]
        live, found = held_out.divergences(tried)
        best, smallest = tried[int(np.argmin(found))], min(found)
        chosen = best.route
        divergences.append(tuple(found))
    divergences += divergences[:1] * (len(weights) - len(divergences))
    if given is not None:
        if len(given) != len(chosen):
            raise UsageError(
                f"--route gives {len(given)} routes; the router routes {len(chosen)} times by the data in this base"
            )
        best = _Candidate(given)
        _, (smallest,) = held_out.divergences([best])
    answers, frozen = held_out.answers(live), held_out.answers(best.predictions)
    (drop,) = drops(answers, frozen, choose_metrics(answers.kinds, metric), intervals=False)
    everything = fitted if len(rows) == 1 else [*fitted, *live]
    return TaskRoutes(
        rows=len(rows),
        held_out=len(odd),
        calls=tuple(_call(everything, call, best.route[call], found) for call, found in enumerate(divergences)),
        given=given is not None,
        error=_error(best, live, smallest),
        metric=drop if drop.labelled else None,
    )


def _route(router: Router, weights: np.ndarray, group: int) -> Route:
    return Route(group, tuple(router.kept(weights[group]).round(_DIGITS).tolist()))


def _call(predictions: Sequence[Prediction], call: int, route: Route, divergences: tuple[float, ...]) -> CallRoutes:
    affinity = np.stack([_affinity(each)[call] for each in predictions])
    taken = np.bincount([int(each.groups[call]) for each in predictions], minlength=affinity.shape[1])
    return CallRoutes(route, taken / len(predictions), affinity.mean(0), affinity.std(0), divergences)


def _error(chosen: _Candidate, live: Sequence[Prediction], found: float) -> dict[str, float]:
    """Over held-out rows; groups agree as the share of the calls of all rows that do."""
    pairs = list(zip(chosen.predictions, live, strict=True))
    groups = np.array([route.group for route in chosen.route])
    return {
        "rows": len(live),
        "divergence": found,
        "group_agreement": float(np.mean([each.groups == groups for each in live])),
        "argmax_agreement": sum(np.array_equal(frozen.best, each.best) for frozen, each in pairs) / len(live),
        "max_abs": round(max(chosen.largest), _DIGITS),
        "mean_abs": round(float(np.mean(chosen.means)), _DIGITS),
        "largest_output": round(max(each.largest for each in live), _DIGITS),
    }


def _labels(runner: ReferenceRunner, rows: Sequence[EncodedRow], live: Prediction) -> np.ndarray | None:
    """The rows' labels in the form of answers; None where a row has no label, or answers of that kind have none."""
    kind, first = live.kind, rows[0].row
    if kind == "vector" or any(row.row.label is None for row in rows):
        return None
    if kind != "tokens":
        task = runner.task(first.task, len(live.answer))
        if kind == "sets":
            return np.array([label_set(row.row, task, task.labels) for row in rows])
        return np.array([label_number(row.row, task, kind) for row in rows])
    if not all(row.wanted for row in rows):
        return None
    return as_objects([row.wanted for row in rows])


def _affinity(prediction: Prediction) -> np.ndarray:
    assert prediction.affinity is not None
    return prediction.affinity


def _without_output(prediction: Prediction) -> Prediction:
    """The output may be as wide as a vocabulary."""
    return replace(prediction, output=np.zeros(0))


def _rounded(array: np.ndarray) -> Any:
    return np.round(array, _DIGITS).tolist()
