"""Which groups of experts the data takes, and what freezing one of them loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eptx._html import Cell, Content, Html, cell, clipped, h, join, table
from eptx.calibration.report.phrases import counted, damage, number
from eptx.calibration.report.view import finite

STYLE = """
.bar { display: inline-block; height: .7rem; background: var(--cool); border-radius: 2px; margin-right: .4rem;
  vertical-align: -.05rem; }
"""
_BAR = 72


def routes_section(routes: Mapping[str, Any]) -> list[Content]:
    """A table of tasks and groups, and one of the route that each task is frozen to."""
    tasks: Mapping[str, Mapping[str, Any]] = routes.get("tasks") or {}
    groups = [
        _group(task, found, call, index)
        for task, found in tasks.items()
        for call, own in enumerate(_calls(found))
        for index in range(_count(own))
    ]
    header = ("task", "group", "loss", "share of rows")
    return [
        h(
            "p",
            f"The router, in {routes.get('router') or 'an unknown module'}, picks one of ",
            f"{counted(int(routes.get('groups') or 0), 'group')} from the data. The share says for how many rows of a "
            "task it picks each. A frozen route always takes the same group; its loss is by how much the answers to "
            "held-out rows then move, as a divergence. ✓ marks the group that the task is frozen to. Where the base "
            "calls the router several times, each call has a route of its own.",
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


def _calls(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What is known of each call of the router."""
    return found.get("calls") or []


def _count(call: Mapping[str, Any]) -> int:
    return max(len(call.get("share") or []), len(call.get("loss") or []))


def _group(task: str, found: Mapping[str, Any], call: int, index: int) -> list[Content]:
    calls = _calls(found)
    share, loss = (_at(calls[call].get(name), index) for name in ("share", "loss"))
    first = call == index == 0
    name = clipped(task) if first else h("span", clipped(task), class_="soft")
    said = f"{index}" if len(calls) == 1 else f"call {call + 1}: {index}"
    return [name, _marked(said) if calls[call].get("chosen") == index else said, damage(loss), _bar(share)]


def _marked(group: str) -> Html:
    return join([group, " ", h("b", "✓", class_="good", role="img", aria_label="frozen to this")])


def _bar(share: float | None) -> Cell:
    width = round((share or 0.0) * _BAR)
    bar = h("span", class_="bar", style=f"width: {width}px") if width else None
    return cell(Html((bar or "") + ("–" if share is None else f"{number(100 * share, 0)} %")))


def _frozen(tasks: Mapping[str, Mapping[str, Any]]) -> Html:
    rows: list[Sequence[Content]] = []
    for task, found in tasks.items():
        calls = _calls(found)
        chosen = [call.get("chosen") for call in calls]
        groups = " / ".join("–" if group is None else str(group) for group in chosen) or "–"
        metric = found.get("metric") or {}
        loss = found.get("chosen_loss", None if len(calls) != 1 else _at(calls[0].get("loss"), chosen[0]))
        rows.append(
            [
                clipped(task),
                f"{groups}, given" if found.get("given") else groups,
                damage(finite(loss)),
                str(metric.get("name") or "–"),
                number(finite(metric.get("live")), 4),
                number(finite(metric.get("frozen")), 4),
                f"{found.get('rows', '–')}, {found.get('held_out', '–')} held out",
                " / ".join(_weights(call, bool(found.get("given"))) for call in calls) or "–",
            ]
        )
    header = ("task", "group", "loss", "metric", "live", "frozen", "rows", "experts' weights")
    return table(header, rows, kinds="ttntnntt", label="Frozen routes")


def _weights(call: Mapping[str, Any], given: bool) -> str:
    deviations = [] if given else _at_row(call.get("weights_deviation"), call.get("chosen"))
    said = []
    for index, value in enumerate(call.get("weights") or []):
        spread = finite(deviations[index]) if index < len(deviations) else None
        said.append(number(finite(value)) + (f" ± {number(spread)}" if spread is not None else ""))
    return ", ".join(said) or "–"


def _at(values: Sequence[object] | None, index: int | None) -> float | None:
    return finite(values[index]) if values and index is not None and index < len(values) else None


def _at_row(values: Sequence[Sequence[object]] | None, index: int | None) -> Sequence[object]:
    return values[index] if values and index is not None and index < len(values) else []
