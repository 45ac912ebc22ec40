"""The report as one page for the browser. It loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eptx._html import Content, Html, clipped, h, join, page
from eptx.calibration.report import drops, frontier, heatmap, routes, trials
from eptx.calibration.report.experts import experts_section, left_out
from eptx.calibration.report.facts import facts
from eptx.calibration.report.phrases import counted, number, readable, short, verdict
from eptx.calibration.report.view import Trial, View, finite, read_view, section

_STYLE = """
.verdict { font-size: 1.1rem; padding: .75rem 1rem; background: var(--panel); border-left: 4px solid var(--accent);
  border-radius: .25rem; max-width: none; } .verdict.fit { border-color: var(--good); }
.verdict.miss { border-color: var(--bad); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.card { border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .75rem; }
.card b { display: block; font-size: 1.35rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.card span { display: block; color: var(--soft); font-size: .85rem; line-height: 1.35; }
dl { display: grid; grid-template-columns: minmax(5rem, max-content) 1fr; gap: .15rem 1rem; margin: .5rem 0; }
dt { color: var(--soft); } dd { margin: 0; min-width: 0; } ul.names { padding-left: 1.25rem; margin: .25rem 0; }
ul.names.many { columns: 16rem; }
"""


def report_html(calibration: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        calibration: what ``calibration.json`` holds; a section that is absent or null is left out, and so is a number
            that is not finite.
    """
    view = read_view(calibration)
    kind = " ".join(str(calibration[name]) for name in ("mode", "method") if calibration.get(name))
    model = calibration.get("model_type")
    title = "Calibration" + (f": {kind}" if kind else "") + (f" on {model}" if model else "")
    sections = [
        _section("What was calibrated", facts(calibration, view)),
        _section("Cost and loss", _frontier(view)),
        _section("Trials", _trials(view)),
        _section(*_drops(view.shown)),
        _section("Sensitivity of the layers", _sensitivity(section(calibration, "sensitivity"), view.chosen)),
        _section("Experts", _experts(calibration)),
        _section("Routes", _routes(calibration)),
    ]
    style = _STYLE + frontier.STYLE + trials.STYLE + drops.STYLE + heatmap.STYLE + routes.STYLE
    return page(title, h("h1", title), _verdict(view), _cards(view.chosen), *sections, style=style)


def _section(title: str, content: list[Content]) -> Html | None:
    return h("section", h("h2", title), join(content, "\n")) if any(content) else None


def _verdict(view: View) -> Html:
    chosen = view.chosen
    fits = "" if chosen is None else " fit" if chosen.within else " miss"
    return h("p", verdict(view), class_="verdict" + fits)


def _cards(chosen: Trial | None) -> Html | None:
    if chosen is None:
        return None
    worst, mean = chosen.worst, chosen.mean
    cards = [
        _card(f"{number(chosen.size, 1)} MB", f"size, {number(chosen.size_ratio)} of fp32"),
        _card(f"{number(chosen.time)} ms", f"latency, {number(chosen.time_ratio)} of fp32"),
    ]
    if worst is not None:
        budget = f", budget {short(worst.budget)}" if worst.budget is not None else ""
        on = clipped(worst.task)
        cards.append(_card(number(worst.points), join(["points, the worst drop, on ", on, budget])))
    if len(chosen.drops) > 1:
        cards.append(_card(number(mean), f"points, the mean drop of {counted(len(chosen.drops), 'task')}"))
    return h("div", *cards, class_="cards")


def _card(value: str, what: Content) -> Html:
    return h("div", h("b", value), h("span", what), class_="card")


def _frontier(view: View) -> list[Content]:
    plots = frontier.frontier(view)
    if plots is None:
        return []
    said = (
        "Each mark is a trial, with its number in the table below. Further left is smaller or faster, further down "
        "loses less: its height is the drop of the task that fares worst"
        + (", less what that task may lose. " if view.budget is None and view.budgets else ". ")
    )
    return [h("p", said, *_points()), plots]


def _points() -> list[Content]:
    return ["A drop is counted in ", h("b", "points"), ": 100 times by how much the task's metric is below fp32's."]


def _trials(view: View) -> list[Content]:
    if not view.trials:
        return []
    said = (
        "Everything that was tried. A trial is within the budget when every task is; its worst drop is the one that is "
    )
    return [
        h("p", said + "furthest past its budget, or nearest to it. Size and latency are parts of fp32's."),
        trials.trials_table(view),
    ]


def _drops(trial: Trial | None) -> tuple[str, list[Content]]:
    if trial is None or not trial.drops:
        return "", []
    said = (
        "The dot is the drop against fp32 in points, the line its 95 % interval: where the drop would be, 19 times out "
        "of 20, had other rows of the same kind been drawn. Below zero a task gains. The dashed line is the budget."
    )
    content: list[Content] = [h("p", said), drops.drops_table(trial)]
    if not all(drop.labelled for drop in trial.drops):
        content.append(
            h("p", "Tasks without labels are measured against fp32's own answers, for which the metric is 1.")
        )
    if trial.kept:
        names, prefix = readable(trial.kept)
        many = "names many" if len(names) > 8 else "names"
        items = [h("li", name) for name in names.values()]
        said = f"{counted(len(names), 'group')} kept in higher precision"
        content += [h("h3", said), left_out(prefix), h("ul", *items, class_=many)]
    which = trial.name if trial.chosen else f"{trial.name}, the closest,"
    return f"What {which} loses", content


def _sensitivity(found: Mapping[str, Any], chosen: Trial | None) -> list[Content]:
    groups = [group["name"] for group in found.get("groups") or ()]
    damages = {task: [finite(v) for v in values] for task, values in section(found, "damage").items()}
    if not groups or not damages:
        return []
    kept = chosen.kept if chosen is not None else ()
    worst, drawn, prefix = heatmap.sensitivity_map(groups, damages, kept)
    said: list[Content] = [
        "What happens to each task when this part of the model alone is stored as ",
        f"{found.get('scheme') or 'integers'}. ",
        "The number is a ",
        h("b", "divergence"),
        ": how far the answers move from fp32's, from 0 (not at all) to 100 (entirely different). It sees changes that "
        "are too small to turn an answer, so it is not comparable with points.",
    ]
    return [
        h("p", *said),
        h("h3", "The most sensitive"),
        worst,
        h("h3", f"All {len(groups)}, in the order of the graph" if len(groups) > 1 else "The only one"),
        h("p", "Each shade is for numbers twice as large as the one before."),
        left_out(prefix),
        drawn,
    ]


def _experts(calibration: Mapping[str, Any]) -> list[Content]:
    experts = section(calibration, "experts")
    return experts_section(experts) if experts else []


def _routes(calibration: Mapping[str, Any]) -> list[Content]:
    found = section(calibration, "routes")
    return routes.routes_section(found) if found else []
