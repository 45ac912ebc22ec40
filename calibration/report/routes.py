"""Which groups of experts the data takes, and how far freezing one of them moves the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eptx.calibration.report.phrases import counted, divergence, number
from eptx.calibration.routes.study import RouteStudy
from eptx.calibration.routes.task_routes import CallRoutes, TaskRoutes
from eptx.reports.html import Cell, Content, Html, cell, clipped, h, join, table

STYLE = """
.bar { display: inline-block; height: .7rem; background: var(--cool); border-radius: 2px; margin-right: .4rem;
  vertical-align: -.05rem; }
"""
_BAR = 72
_EVERY_MODULE = (
    "Every module has a router, which weighs the experts for every token. Fixed weights are the means over half of the "
    "rows; their divergence says how far the answers to the other half then move. The last column has the means over "
    "the modules, ± their standard deviation from module to module."
)


def routes_section(study: RouteStudy) -> list[Content]:
    """A table of tasks and groups, and one of the route that each task is frozen to."""
    if study.router is None:
        return [h("p", _EVERY_MODULE), _frozen(study.tasks, _mean_weights)]
    groups = [
        _group(task, found, call, group)
        for task, found in study.tasks.items()
        for call in range(len(found.calls))
        for group in range(study.groups)
    ]
    return [
        h(
            "p",
            f"The router, in {study.router}, picks one of {counted(study.groups, 'group')} from the data. The share "
            "says for how many rows of a task it picks each. A frozen route always takes the same group; its "
            "divergence says how far the answers to held-out rows then move. ✓ marks the group that the task is "
            "frozen to. Where the base calls the router several times, each call has a route of its own.",
        ),
        table(
            ("task", "group", "divergence", "share of rows"),
            groups,
            kinds="tttt",
            label="Groups by task",
            class_="routes",
            tall=len(groups) > 40,
        ),
        h("h3", "The route that each task would be frozen to"),
        h(
            "p",
            "The group with the smallest divergence, unless one was given, and its experts' mean weights over rows, "
            "± their standard deviation.",
        ),
        _frozen(study.tasks, lambda found: " / ".join(_weights(call, found.given) for call in found.calls)),
    ]


def _group(task: str, found: TaskRoutes, index: int, group: int) -> list[Content]:
    call = found.calls[index]
    first = index == group == 0
    name = clipped(task) if first else h("span", clipped(task), class_="soft")
    said = f"{group}" if len(found.calls) == 1 else f"call {index + 1}: {group}"
    marked = _marked(said) if call.route.group == group else said
    return [name, marked, divergence(call.divergences[group]), _bar(float(call.share[group]))]


def _marked(group: str) -> Html:
    return join([group, " ", h("b", "✓", class_="good", role="img", aria_label="frozen to this")])


def _bar(share: float) -> Cell:
    width = round(share * _BAR)
    bar = h("span", class_="bar", style=f"width: {width}px") if width else None
    return cell(join([bar, f"{number(100 * share, 0)} %"]))


def _frozen(tasks: Mapping[str, TaskRoutes], weights: Callable[[TaskRoutes], str]) -> Html:
    rows: list[Sequence[Content]] = []
    for task, found in tasks.items():
        groups = " / ".join(dict.fromkeys(str(call.route.group) for call in found.calls))
        metric = found.metric
        rows.append(
            [
                clipped(task),
                f"{groups}, given" if found.given else groups,
                divergence(found.error["divergence"]),
                metric.metric if metric else "–",
                number(metric.reference, 4) if metric else "–",
                number(metric.found, 4) if metric else "–",
                f"{found.rows}, {found.held_out} held out",
                weights(found),
            ]
        )
    header = ("task", "group", "divergence", "metric", "live", "frozen", "rows", "experts' weights")
    return table(header, rows, kinds="ttntnntt", label="Frozen routes")


def _mean_weights(found: TaskRoutes) -> str:
    weights = np.array([call.route.weights for call in found.calls])
    both = zip(weights.mean(0).tolist(), weights.std(0).tolist(), strict=True)
    return ", ".join(f"{number(weight)} ± {number(deviation)}" for weight, deviation in both)


def _weights(call: CallRoutes, given: bool) -> str:
    if given:
        return ", ".join(map(number, call.route.weights))
    both = zip(call.route.weights, call.deviation[call.route.group], strict=True)
    return ", ".join(f"{number(weight)} ± {number(deviation)}" for weight, deviation in both)
