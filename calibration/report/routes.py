"""Which groups of experts the data takes, and what freezing one of them loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eptx._html import Cell, Content, Html, cell, clipped, h, join, table
from eptx.calibration.report.say import counted, damage, number
from eptx.calibration.report.view import finite

STYLE = """
.bar { display: inline-block; height: .7rem; background: var(--cool); border-radius: 2px; margin-right: .4rem;
  vertical-align: -.05rem; }
"""
_BAR = 72


def routes_section(routes: Mapping[str, Any]) -> list[Content]:
    """A table of tasks and groups, and one of the route that each task is frozen to."""
    tasks: Mapping[str, Mapping[str, Any]] = routes.get("tasks") or {}
    groups = [_group(task, found, index) for task, found in tasks.items() for index in range(_count(found))]
    header = ("task", "group", "loss", "share of rows")
    return [
        h(
            "p",
            f"The router, in {routes.get('router') or 'an unknown module'}, picks one of ",
            f"{counted(int(routes.get('groups') or 0), 'group')} from the data. The share says for how many rows of a "
            "task it picks each. A frozen route always takes the same group; its loss is by how much the answers to "
            "held-out rows then move, as a divergence. ✓ marks the group that the task is frozen to.",
        ),
        table(header, groups, kinds="tttt", label="Groups by task", class_="routes", tall=len(groups) > 40),
        h("h3", "The route that each task would be frozen to"),
        h(
            "p",
            "The group with the least loss, unless one was given, and its experts' mean weights over rows, "
            "± their standard deviation.",
        ),
        _frozen(tasks),
    ]


def _count(found: Mapping[str, Any]) -> int:
    return max(len(found.get("share") or []), len(found.get("loss") or []))


def _group(task: str, found: Mapping[str, Any], index: int) -> list[Content]:
    share, loss = (_at(found.get(name), index) for name in ("share", "loss"))
    chosen = found.get("chosen") == index
    name = clipped(task) if index == 0 else h("span", clipped(task), class_="soft")
    return [name, _marked(index) if chosen else str(index), damage(loss), _bar(share)]


def _marked(group: int) -> Html:
    return join([str(group), " ", h("b", "✓", class_="good", role="img", aria_label="frozen to this")])


def _bar(share: float | None) -> Cell:
    width = round((share or 0.0) * _BAR)
    bar = h("span", class_="bar", style=f"width: {width}px") if width else None
    return cell(Html((bar or "") + ("–" if share is None else f"{number(100 * share, 0)} %")))


def _frozen(tasks: Mapping[str, Mapping[str, Any]]) -> Html:
    rows: list[Sequence[Content]] = []
    for task, found in tasks.items():
        group = found.get("chosen")
        metric = found.get("metric") or {}
        loss = found.get("chosen_loss", None if group is None else _at(found.get("loss"), group))
        rows.append(
            [
                clipped(task),
                "–" if group is None else f"{group}, given" if found.get("given") else str(group),
                damage(finite(loss)),
                str(metric.get("name") or "–"),
                number(finite(metric.get("live")), 4),
                number(finite(metric.get("frozen")), 4),
                f"{found.get('rows', '–')}, {found.get('held_out', '–')} held out",
                _weights(found, group),
            ]
        )
    header = ("task", "group", "loss", "metric", "live", "frozen", "rows", "experts' weights")
    return table(header, rows, kinds="ttntnntt", label="Frozen routes")


def _weights(found: Mapping[str, Any], group: int | None) -> str:
    deviations = [] if found.get("given") else _at_row(found.get("weights_deviation"), group)
    said = []
    for index, value in enumerate(found.get("weights") or []):
        spread = finite(deviations[index]) if index < len(deviations) else None
        said.append(number(finite(value)) + (f" ± {number(spread)}" if spread is not None else ""))
    return ", ".join(said) or "–"


def _at(values: Sequence[object] | None, index: int) -> float | None:
    return finite(values[index]) if values and index < len(values) else None


def _at_row(values: Sequence[Sequence[object]] | None, index: int | None) -> Sequence[object]:
    return values[index] if values and index is not None and index < len(values) else []
