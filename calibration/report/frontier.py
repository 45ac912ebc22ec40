"""What each trial costs against how far it drops: two plots of numbered points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from eptx.calibration.report.axis import Axis, axis
from eptx.calibration.report.phrases import number, points, short
from eptx.calibration.result import CalibrationResult
from eptx.calibration.search.trial import Trial, past
from eptx.reports.html import Html, h, join

STYLE = """
.plots { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
figure { margin: .5rem 0; flex: 1 1 20rem; max-width: 31rem; }
figcaption { font-weight: 600; } svg .grid { stroke: var(--line); }
svg text.budget { fill: var(--bad); stroke: none; }
svg .frontier { fill: none; stroke: var(--accent); stroke-width: 1.5; opacity: .6; }
svg .lead { stroke: var(--soft); stroke-width: .75; }
svg text.number { font-weight: 600; font-size: 11px; paint-order: stroke; stroke: var(--page);
  stroke-width: 3px; stroke-linejoin: round; }
svg .ring { fill: none; stroke: var(--accent); stroke-width: 2.5; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; margin: .5rem 0; list-style: none; }
.key li { display: flex; align-items: center; gap: .4rem; }
"""
_WIDTH, _HEIGHT = 360, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 348, 26, 246
#: Trials that drop by more than this many budgets (of half a point at least) are drawn at the top of the plot.
_FAR = 4.0
_DIGIT, _LINE = 7.0, 12.0


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def hits(self, other: _Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


@dataclass(frozen=True)
class _Point:
    number: int
    trial: Trial
    x: float
    y: float


def frontier(result: CalibrationResult) -> Html | None:
    """The plots for size and latency, with a key; None when nothing can be plotted."""
    known = {number: trial for number, trial in enumerate(result.trials, 1) if math.isfinite(_height(result, trial))}
    if len(known) < 2:
        return None
    plots = [
        _plot(result, known, "Size", "megabytes", lambda trial: trial.bytes / 1e6),
        _plot(result, known, "Latency", "of fp32's", lambda trial: trial.latency_ratio),
    ]
    return join([h("div", *plots, class_="plots"), _key(result, list(known.values()))])


def _height(result: CalibrationResult, trial: Trial) -> float:
    """How high a trial is: its worst drop or, where budgets differ, how far past its budget that is."""
    worst = trial.worst(result.budget)
    return past(worst, result.budget) if len(set(result.budget.values())) > 1 else worst.points


def _plot(
    result: CalibrationResult, trials: Mapping[int, Trial], title: str, unit: str, cost: Callable[[Trial], float]
) -> Html:
    across = axis([cost(trial) for trial in trials.values()], _LEFT, _RIGHT)
    up = _up(result, list(trials.values()))
    found = [_Point(n, t, across.at(cost(t)), up.at(_height(result, t))) for n, t in trials.items()]
    budget, taken = _budget(result, up)
    several = len(set(result.budget.values())) > 1
    what = "worst drop past its budget, points" if several else "worst drop, points"
    drawn = [*_grid(across, up, what, f"{title.lower()}, {unit}"), budget, _line(found)]
    drawn += [_mark(result, point, up, f"{title.lower()} {number(cost(point.trial))} {unit}") for point in found]
    drawn += _labels(found, taken)
    says = f"{title} against {what}: {len(found)} trials, numbered as in the table"
    picture = h("svg", *drawn, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=says)
    return h("figure", h("figcaption", title), picture)


def _up(result: CalibrationResult, trials: Sequence[Trial]) -> Axis:
    """From the smallest drop to the largest that is not far off."""
    heights, common = [_height(result, trial) for trial in trials], result.common_budget
    limit = _FAR * max([*result.budget.values(), 0.5])
    near = [value for value in heights if value <= limit]
    top = max([*near, common or 0.0])
    if len(near) < len(heights):  # room for those at the top, so that they are above the others
        top = min(limit, max(top * 1.25, (common or 0.5) * 2))
    return axis([0.0, *near, top], _BOTTOM, _TOP)


def _far(result: CalibrationResult, trial: Trial, up: Axis) -> bool:
    """Whether a trial is past the upper end of the plot."""
    return _height(result, trial) > up.high


def _grid(across: Axis, up: Axis, what: str, costs: str) -> Iterator[Html]:
    for tick in up.ticks:
        y = up.at(tick)
        yield h("line", x1=_LEFT, x2=_RIGHT, y1=y, y2=y, class_="zero" if tick == 0 else "grid")
        yield h("text", short(tick), x=_LEFT - 6, y=y + 4, text_anchor="end", class_="soft")
    for tick in across.ticks:
        yield h("line", x1=across.at(tick), x2=across.at(tick), y1=_BOTTOM, y2=_BOTTOM + 4, class_="zero")
        yield h("text", short(tick), x=across.at(tick), y=_BOTTOM + 17, text_anchor="middle", class_="soft")
    yield h("text", what, x=4, y=12, class_="soft")
    yield h("text", costs, x=_RIGHT, y=_BOTTOM + 36, text_anchor="end", class_="soft")


def _budget(result: CalibrationResult, up: Axis) -> tuple[Html | None, list[_Box]]:
    """The line that trials must stay below, and the room that its name takes."""
    if not result.budget:
        return None, []
    common = result.common_budget
    y = up.at(common if common is not None else 0.0)
    name = f"budget {short(common)}" if common is not None else "budget"
    left = _RIGHT - _DIGIT * len(name)
    line = h("line", x1=_LEFT, x2=_RIGHT, y1=y, y2=y, class_="budget")
    text = h("text", name, x=_RIGHT, y=y - 4, text_anchor="end", class_="budget")
    return join([line, text]), [_Box(left, y - _LINE - 4, _RIGHT, y)]


def _line(found: Sequence[_Point]) -> Html | None:
    """Along the trials to which no other is better in both."""
    best: list[_Point] = []
    for point in sorted(found, key=lambda p: (p.x, -p.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    steps = [f"{b.x},{a.y} {b.x},{b.y}" for a, b in pairwise(best)]
    if not steps:
        return None
    return h("polyline", points=" ".join([f"{best[0].x},{best[0].y}", *steps]), class_="frontier")


def _mark(result: CalibrationResult, point: _Point, up: Axis, costs: str) -> Html:
    trial, x, y = point.trial, point.x, point.y
    worst, within = trial.worst(result.budget), trial.within(result.budget)
    class_ = "mark" if within else "mark over"
    verdict = "within the budget" if within else "past the budget"
    said = f"{point.number} {trial.name}: {costs}, worst drop {points(worst.points)} on {worst.task}, {verdict}"
    if _far(result, trial, up):
        shape = h("path", d=f"M{x - 5},{y + 4} L{x},{y - 5} L{x + 5},{y + 4} Z", class_=class_)
    else:
        shape = h("circle", cx=x, cy=y, r=4, class_=class_)
    ring = h("circle", cx=x, cy=y, r=8, class_="ring") if trial is result.chosen else None
    return h("g", h("title", said), ring, shape)


def _labels(found: Sequence[_Point], taken: Sequence[_Box]) -> Iterator[Html]:
    """The points' numbers, each at the nearest place that is free; a thin line leads to one that is further off."""
    boxes = [*taken, *(_Box(p.x - 6, p.y - 6, p.x + 6, p.y + 6) for p in found)]
    for point in found:
        text = str(point.number)
        x, y, box = _place(point, _DIGIT * len(text) + 2, boxes)
        boxes.append(box)
        away = math.dist((x, y), (point.x, point.y))
        if away > 18:
            ends = {"x2": round(x + (point.x - x) * 7 / away, 1), "y2": round(y + (point.y - y) * 7 / away, 1)}
            yield h("line", x1=point.x, y1=point.y, class_="lead", **ends)
        yield h("text", text, x=x, y=round(y + 4, 1), text_anchor="middle", class_="number")


def _place(point: _Point, width: float, boxes: Sequence[_Box]) -> tuple[float, float, _Box]:
    places = [(r, a) for r in range(13, 200, 8) for a in range(-45, 315, 30)]
    for radius, angle in places:
        x = round(point.x + radius * math.cos(math.radians(angle)), 1)
        y = round(point.y + radius * math.sin(math.radians(angle)), 1)
        box = _Box(x - width / 2, y - _LINE / 2, x + width / 2, y + _LINE / 2)
        inside = box.left > _LEFT and box.right < _WIDTH and box.top > 14 and box.bottom < _BOTTOM
        if inside and not any(box.hits(other) for other in boxes):
            return x, y, box
    return point.x, point.y, _Box(0, 0, 0, 0)


def _key(result: CalibrationResult, trials: Sequence[Trial]) -> Html:
    """What marks mean."""

    def entry(text: str, *drawn: Html) -> Html:
        picture = h("svg", *drawn, viewBox="0 0 20 20", width=20, height=20, aria_hidden="true")
        return h("li", picture, h("span", text))

    inside = h("circle", cx=10, cy=10, r=4, class_="mark")
    over = h("circle", cx=10, cy=10, r=4, class_="mark over")
    up = _up(result, trials)
    entries = [
        entry("within the budget", inside),
        entry("past the budget", over),
        entry("chosen", h("circle", cx=10, cy=10, r=8, class_="ring"), inside),
        entry("further up than the plot shows", h("path", d="M5,14 L10,5 L15,14 Z", class_="mark over"))
        if any(_far(result, trial, up) for trial in trials)
        else None,
        entry("no trial is better in both", h("polyline", points="2,4 10,4 10,15 18,15", class_="frontier")),
    ]
    return h("ul", *entries, class_="key soft")
