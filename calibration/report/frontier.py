"""What each trial costs against what it loses: two plots of numbered points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from eptx._html import Html, h, join
from eptx.calibration.report.axis import Axis, axis
from eptx.calibration.report.phrases import number, points, short
from eptx.calibration.report.view import Trial, View

STYLE = """
.plots { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
figure { margin: .5rem 0; flex: 1 1 20rem; max-width: 31rem; }
figcaption { font-weight: 600; } svg .grid { stroke: var(--line); } svg .zero { stroke: var(--soft); }
svg .budget { stroke: var(--bad); stroke-dasharray: 5 4; } svg text.budget { fill: var(--bad); stroke: none; }
svg .frontier { fill: none; stroke: var(--accent); stroke-width: 1.5; opacity: .6; }
svg .lead { stroke: var(--soft); stroke-width: .75; }
svg text.number { font-weight: 600; font-size: 11px; paint-order: stroke; stroke: var(--page);
  stroke-width: 3px; stroke-linejoin: round; }
svg .mark { stroke-width: 2; stroke: var(--good); fill: var(--good); }
svg .mark.over { stroke: var(--bad); fill: var(--page); }
svg .ring { fill: none; stroke: var(--accent); stroke-width: 2.5; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; margin: .5rem 0; list-style: none; }
.key li { display: flex; align-items: center; gap: .4rem; }
"""
_WIDTH, _HEIGHT = 360, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 348, 26, 246
#: Trials that lose this many budgets, or points where a budget is less, are drawn at the top of the plot.
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
    trial: Trial
    x: float
    y: float


def frontier(view: View) -> Html | None:
    """The plots for size and latency, with a key; None when nothing can be plotted."""
    known = [trial for trial in view.trials if _lost(view, trial) is not None]
    plots = [
        _plot(view, known, "Size", "megabytes", lambda trial: trial.size),
        _plot(view, known, "Latency", "of fp32's", lambda trial: trial.time_ratio),
    ]
    if not any(plots):
        return None
    return join([h("div", *plots, class_="plots"), _key(view, known)])


def _lost(view: View, trial: Trial) -> float | None:
    """How high a trial is: its worst drop or, where budgets differ, how far past its budget that is."""
    worst = trial.worst
    if worst is None or worst.points is None:
        return None
    return worst.over if len(set(view.budgets.values())) > 1 else worst.points


def _plot(
    view: View, trials: Sequence[Trial], title: str, unit: str, cost: Callable[[Trial], float | None]
) -> Html | None:
    costs = {trial.number: value for trial in trials if (value := cost(trial)) is not None}
    shown = [trial for trial in trials if trial.number in costs]
    if len(shown) < 2:
        return None
    across, up = axis([*costs.values()], _LEFT, _RIGHT), _up(view, shown)
    found = [_Point(t, across.at(costs[t.number]), up.at(_lost(view, t) or 0.0)) for t in shown]
    budget, taken = _budget(view, up)
    what = "worst drop past its budget, points" if len(set(view.budgets.values())) > 1 else "worst drop, points"
    drawn = [*_grid(across, up, what, f"{title.lower()}, {unit}"), budget, _line(found)]
    drawn += [_mark(view, point, up, f"{title.lower()} {number(costs[point.trial.number])} {unit}") for point in found]
    drawn += _labels(found, taken)
    says = f"{title} against {what}: {len(found)} trials, numbered as in the table"
    picture = h("svg", *drawn, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=says)
    return h("figure", h("figcaption", title), picture)


def _up(view: View, trials: Sequence[Trial]) -> Axis:
    """From the smallest drop to the largest that is not far off."""
    lost = [_lost(view, trial) or 0.0 for trial in trials]
    limit = _FAR * max([*view.budgets.values(), 0.5])
    near = [value for value in lost if value <= limit]
    top = max([*near, view.budget or 0.0])
    if len(near) < len(lost):  # room for those at the top, so that they are above the others
        top = min(limit, max(top * 1.25, (view.budget or 0.5) * 2))
    return axis([0.0, *near, top], _BOTTOM, _TOP)


def _far(view: View, trial: Trial, up: Axis) -> bool:
    """Whether a trial is past the upper end of the plot."""
    return (_lost(view, trial) or 0.0) > up.high


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


def _budget(view: View, up: Axis) -> tuple[Html | None, list[_Box]]:
    """The line that trials must keep below, and the room that its name takes."""
    if not view.budgets:
        return None, []
    y = up.at(view.budget if view.budget is not None else 0.0)
    name = f"budget {short(view.budget)}" if view.budget is not None else "budget"
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


def _mark(view: View, point: _Point, up: Axis, costs: str) -> Html:
    trial, x, y = point.trial, point.x, point.y
    worst = trial.worst
    assert worst is not None and worst.points is not None
    class_ = "mark" if trial.within else "mark over"
    verdict = "within the budget" if trial.within else "past the budget"
    said = f"{trial.number} {trial.name}: {costs}, worst drop {points(worst.points)} on {worst.task}, {verdict}"
    if _far(view, trial, up):
        shape = h("path", d=f"M{x - 5},{y + 4} L{x},{y - 5} L{x + 5},{y + 4} Z", class_=class_)
    else:
        shape = h("circle", cx=x, cy=y, r=4, class_=class_)
    ring = h("circle", cx=x, cy=y, r=8, class_="ring") if trial.chosen else None
    return h("g", h("title", said), ring, shape)


def _labels(found: Sequence[_Point], taken: Sequence[_Box]) -> Iterator[Html]:
    """The points' numbers, each at the nearest place that is free; a thin line leads to one that is further off."""
    boxes = [*taken, *(_Box(p.x - 6, p.y - 6, p.x + 6, p.y + 6) for p in found)]
    for point in found:
        text = str(point.trial.number)
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


def _key(view: View, trials: Sequence[Trial]) -> Html:
    """What marks mean."""

    def entry(text: str, *drawn: Html) -> Html:
        picture = h("svg", *drawn, viewBox="0 0 20 20", width=20, height=20, aria_hidden="true")
        return h("li", picture, h("span", text))

    inside = h("circle", cx=10, cy=10, r=4, class_="mark")
    over = h("circle", cx=10, cy=10, r=4, class_="mark over")
    up = _up(view, trials)
    entries = [
        entry("within the budget", inside),
        entry("past the budget", over),
        entry("chosen", h("circle", cx=10, cy=10, r=8, class_="ring"), inside),
        entry("further up than the plot shows", h("path", d="M5,14 L10,5 L15,14 Z", class_="mark over"))
        if any(_far(view, trial, up) for trial in trials)
        else None,
        entry("no trial is better in both", h("polyline", points="2,4 10,4 10,15 18,15", class_="frontier")),
    ]
    return h("ul", *entries, class_="key soft")
