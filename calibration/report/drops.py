"""What the chosen trial loses in each task: a plot of dots and whiskers, one row of a table each."""

from __future__ import annotations

from collections.abc import Sequence

from eptx._html import Cell, Content, Html, cell, clipped, h, join, table
from eptx.calibration.report.axis import Axis, axis
from eptx.calibration.report.phrases import interval, number, points, short
from eptx.calibration.report.view import Drop, Trial

STYLE = """
.forest td, .forest th { vertical-align: middle; } .forest thead th { vertical-align: bottom; }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; }
"""
_HEADER = ("points", "95 % interval", "budget", "metric", "fp32", "found", "rows")
_WIDTH, _HEIGHT = 164, 24


def drops_table(trial: Trial) -> Html:
    """The drops of all tasks on one scale."""
    values = [v for d in trial.drops for v in (d.points, d.low, d.high, d.budget) if v is not None]
    scale = axis([0.0, *values, *([] if any(values) else [1.0])], 12, _WIDTH - 12, ticks=4)
    rows = [_row(drop, scale) for drop in trial.drops]
    header = ["task", join(["drop", _scale(scale)]), *_HEADER]
    return table(header, rows, kinds="ttnnntnnn", label=f"Drops of {trial.name}", class_="forest")


def _row(drop: Drop, scale: Axis) -> list[Content]:
    metric = drop.metric if drop.labelled else f"{drop.metric}, of fp32's answers"
    mark = h("span", number(drop.points), class_=None if drop.within else "bad")
    return [
        clipped(drop.task, 48),
        _picture(drop, scale),
        mark,
        interval(drop),
        "–" if drop.budget is None else short(drop.budget),
        metric,
        number(drop.reference, 4),
        number(drop.found, 4),
        str(drop.rows),
    ]


def _picture(drop: Drop, scale: Axis) -> Cell:
    middle = _HEIGHT / 2
    drawn = [_upright(scale, 0.0, "zero")]
    if drop.budget is not None:
        drawn.append(_upright(scale, drop.budget, "budget"))
    if drop.low is not None and drop.high is not None:
        low, high = scale.at(drop.low), scale.at(drop.high)
        drawn += [h("line", x1=low, x2=high, y1=middle, y2=middle, class_="whisker")]
        drawn += [h("line", x1=x, x2=x, y1=middle - 4, y2=middle + 4, class_="whisker") for x in (low, high)]
    if drop.points is not None:
        drawn.append(h("circle", cx=scale.at(drop.points), cy=middle, r=4.5, class_=_mark(drop)))
    said = "could not be measured" if drop.points is None else f"{points(drop.points)}, {interval(drop)}"
    if drop.budget is not None:
        said += f", budget {short(drop.budget)}, {'within' if drop.within else 'past'} it"
    return cell(_svg(drawn, f"{drop.task}: {said}"))


def _mark(drop: Drop) -> str:
    return "mark" if drop.within else "mark over"


def _scale(scale: Axis) -> Html:
    drawn = [h("text", short(t), x=scale.at(t), y=16, text_anchor="middle", class_="soft") for t in scale.ticks]
    return _svg(drawn, "scale of the drops, in points")


def _upright(scale: Axis, value: float, class_: str) -> Html:
    return h("line", x1=scale.at(value), x2=scale.at(value), y1=0, y2=_HEIGHT, class_=class_)


def _svg(drawn: Sequence[Html], says: str) -> Html:
    inside = h("title", says), join(drawn)
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return h("svg", *inside, width=_WIDTH, height=_HEIGHT, viewBox=box, role="img", aria_label=says)
