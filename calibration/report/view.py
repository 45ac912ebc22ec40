"""What ``calibration.json`` says of trials, as a report needs it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Drop:
    """What a trial loses in one task; numbers that could not be measured are None.

    Attributes:
        task: its name.
        metric: what was measured.
        labelled: whether against labels, otherwise against the answers in fp32.
        rows: how many rows.
        reference: the metric in fp32. found: of the trial.
        points: 100 (reference - found).
        low: of a 95 % interval of the points. high: its other end.
        budget: points that the task may lose, None where nothing was said.
    """

    task: str
    metric: str
    labelled: bool
    rows: int
    reference: float | None
    found: float | None
    points: float | None
    low: float | None
    high: float | None
    budget: float | None

    @property
    def over(self) -> float:
        """Points past the budget, negative when there are some left; infinite when nothing could be measured."""
        return math.inf if self.points is None else self.points - (self.budget or 0.0)

    @property
    def within(self) -> bool:
        """Whether the points keep to the budget."""
        return self.over <= 0 if self.budget is not None else self.points is not None


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Attributes:
        number: from 1, in the order of the trials.
        name: of the setting.
        kept: groups that it keeps in higher precision.
        size: megabytes. size_ratio: against fp32.
        time: milliseconds. time_ratio: against fp32.
        drops: of every task.
        within: whether every task keeps to its budget.
        chosen: whether it is the result.
    """

    number: int
    name: str
    kept: tuple[str, ...]
    size: float | None
    size_ratio: float | None
    time: float | None
    time_ratio: float | None
    drops: tuple[Drop, ...]
    within: bool
    chosen: bool

    @property
    def worst(self) -> Drop | None:
        """The drop that is furthest past its budget, or nearest to it."""
        return max(self.drops, key=lambda drop: drop.over, default=None)

    @property
    def mean(self) -> float | None:
        """Points, the mean over all tasks."""
        points = [drop.points for drop in self.drops if drop.points is not None]
        return sum(points) / len(points) if points and len(points) == len(self.drops) else None


@dataclass(frozen=True)
class View:
    """All trials.

    Attributes:
        trials: fp32 first.
        budgets: task -> points that it may lose.
        goal: ``size`` or ``latency``.
    """

    trials: tuple[Trial, ...]
    budgets: Mapping[str, float]
    goal: str

    @property
    def chosen(self) -> Trial | None:
        """The trial that is the result."""
        return next((trial for trial in self.trials if trial.chosen), None)

    @property
    def closest(self) -> Trial | None:
        """Of the trials that would be better than fp32 but are past a budget, the one that is the least past it."""
        past = [(trial.worst.over, trial) for trial in self.trials[1:] if trial.worst is not None and not trial.within]
        better = [entry for entry in past if (self.cost(entry[1]) or 0.0) < 1]
        return min(better, key=lambda entry: entry[0])[1] if better else None

    def cost(self, trial: Trial) -> float | None:
        """What the goal makes small, against fp32."""
        return trial.time_ratio if self.goal == "latency" else trial.size_ratio

    @property
    def shown(self) -> Trial | None:
        """Whose drops are worth showing: those of the trial that was chosen or, as fp32 has none, of the closest."""
        return self.chosen if self.chosen is not None and self.chosen.number > 1 else self.closest

    @property
    def budget(self) -> float | None:
        """The points of every task when all may lose the same, otherwise None."""
        values = set(self.budgets.values())
        return values.pop() if len(values) == 1 else None


def read_view(calibration: Mapping[str, Any]) -> View:
    """The trials of a ``calibration.json``; what it leaves out is empty."""
    settings = section(calibration, "settings")
    budgets = {
        task: points for task, value in section(settings, "max_drop").items() if (points := finite(value)) is not None
    }
    chosen = calibration.get("chosen")
    trials: Sequence[Mapping[str, Any]] = calibration.get("trials") or ()
    read = tuple(_trial(number, trial, chosen, budgets) for number, trial in enumerate(trials, 1))
    return View(read, budgets, str(settings.get("goal") or "size"))


def section(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a report that may be absent or null."""
    return of.get(name) or {}


def finite(value: object) -> float | None:
    """A number, None when it is not one."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _trial(number: int, trial: Mapping[str, Any], chosen: str | None, budgets: Mapping[str, float]) -> Trial:
    size = finite(trial.get("bytes"))
    return Trial(
        number=number,
        name=trial["name"],
        kept=tuple(trial.get("kept") or ()),
        size=None if size is None else size / 1e6,
        size_ratio=finite(trial.get("bytes_ratio")),
        time=finite(trial.get("milliseconds")),
        time_ratio=finite(trial.get("latency_ratio")),
        drops=tuple(_drop(drop, budgets) for drop in trial.get("drops") or ()),
        within=bool(trial.get("within")),
        chosen=trial["name"] == chosen,
    )


def _drop(drop: Mapping[str, Any], budgets: Mapping[str, float]) -> Drop:
    numbers = {name: finite(drop.get(name)) for name in ("reference", "found", "points", "low", "high")}
    return Drop(
        task=drop["task"],
        metric=drop.get("metric") or "",
        labelled=bool(drop.get("labelled")),
        rows=int(drop.get("rows") or 0),
        budget=budgets.get(drop["task"]),
        **numbers,
    )
