"""The drop of each task: a plot of dots and whiskers, each in a row of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eptx.calibration.report.axis import Axis, axis
from eptx.calibration.report.phrases import interval, number, points, short
from eptx.calibration.search.trial import Budget, Trial, is_within
from eptx.reports.html import Cell, Content, Html, cell, clipped, h, join, table
from eptx.runtime.measure import Drop

STYLE = """
.forest td, .forest th { vertical-align: middle; } .forest thead th { vertical-align: bottom; }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; }
"""
_HEADER = ("points", "95 % interval", "budget", "metric", "fp32", "found", "rows")
_WIDTH, _HEIGHT = 164, 24


def drops_table(trial: Trial, budget: Budget) -> Html:
    """The drops of all tasks on one scale."""
    numbers = [v for d in trial.drops for v in (d.points, d.low, d.high, budget.get(d.task, math.nan))]
    values = [value for value in numbers if math.isfinite(value)]
    scale = axis([0.0, *values, *([] if any(values) else [1.0])], 12, _WIDTH - 12, ticks=4)
    rows = [_row(drop, budget, scale) for drop in trial.drops]
    header = ["task", join(["drop", _scale(scale)]), *_HEADER]
    return table(header, rows, kinds="ttnnntnnn", label=f"Drops of {trial.name}", class_="forest")


def _row(drop: Drop, budget: Budget, scale: Axis) -> list[Content]:
    metric = drop.metric if drop.labelled else f"{drop.metric}, of fp32's answers"
    return [
        clipped(drop.task, 48),
        _picture(drop, budget, scale),
        h("span", number(drop.points), class_=None if is_within(drop, budget) else "bad"),
        interval(drop),
        short(budget[drop.task]) if drop.task in budget else "–",
        metric,
        number(drop.reference, 4),
        number(drop.found, 4),
        str(drop.rows),
    ]


def _picture(drop: Drop, budget: Budget, scale: Axis) -> Cell:
    middle, within = _HEIGHT / 2, is_within(drop, budget)
    drawn = [_upright(scale, 0.0, "zero")]
    if drop.task in budget:
        drawn.append(_upright(scale, budget[drop.task], "budget"))
    if math.isfinite(drop.low) and math.isfinite(drop.high):
        low, high = scale.at(drop.low), scale.at(drop.high)
        drawn += [h("line", x1=low, x2=high, y1=middle, y2=middle, class_="whisker")]
        drawn += [h("line", x1=x, x2=x, y1=middle - 4, y2=middle + 4, class_="whisker") for x in (low, high)]
    measured = math.isfinite(drop.points)
    if measured:
        drawn.append(h("circle", cx=scale.at(drop.points), cy=middle, r=4.5, class_="mark" if within else "mark over"))
    said = f"{points(drop.points)}, {interval(drop)}" if measured else "could not be measured"
    if drop.task in budget:
        said += f", budget {short(budget[drop.task])}, {'within' if within else 'past'} it"
    return cell(_svg(drawn, f"{drop.task}: {said}"))


def _scale(scale: Axis) -> Html:
    drawn = [h("text", short(t), x=scale.at(t), y=16, text_anchor="middle", class_="soft") for t in scale.ticks]
    return _svg(drawn, "scale of the drops, in points")


def _upright(scale: Axis, value: float, class_: str) -> Html:
    return h("line", x1=scale.at(value), x2=scale.at(value), y1=0, y2=_HEIGHT, class_=class_)


def _svg(drawn: Sequence[Html], says: str) -> Html:
    inside = h("title", says), join(drawn)
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return h("svg", *inside, width=_WIDTH, height=_HEIGHT, viewBox=box, role="img", aria_label=says)
