"""The report as one page for the browser. It loads nothing and runs nothing."""

from __future__ import annotations

from eptx.calibration.report import drops, frontier, heatmap, marks, phrases, routes, trials
from eptx.calibration.report.experts import experts_section, left_out
from eptx.calibration.report.facts import facts
from eptx.calibration.report.phrases import budget, counted, megabytes, number, readable
from eptx.calibration.result import CalibrationResult
from eptx.reports.html import Content, Html, clipped, h, join
from eptx.reports.page import page, section, verdict

_STYLE = """
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.card { border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .75rem; }
.card b { display: block; font-size: 1.35rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.card span { display: block; color: var(--soft); font-size: .85rem; line-height: 1.35; }
dl { display: grid; grid-template-columns: minmax(5rem, max-content) 1fr; gap: .15rem 1rem; margin: .5rem 0; }
dt { color: var(--soft); } dd { margin: 0; min-width: 0; } ul.names { padding-left: 1.25rem; margin: .25rem 0; }
ul.names.many { columns: 16rem; }
"""


def report_html(result: CalibrationResult) -> str:
    """The whole page; a section without content is left out."""
    title = f"Calibration: {result.mode} {result.method} on {result.model_type}"
    sections = [
        section("What was calibrated", *_warned(result), *facts(result)),
        section("Cost and drop", *_frontier(result)),
        section("Trials", *_trials(result)),
        _drops(result),
        section("Sensitivity of the layers", *_sensitivity(result)),
        section("Experts", *(experts_section(result.experts) if result.experts is not None else [])),
        section("Routes", *(routes.routes_section(result.routes) if result.routes is not None else [])),
    ]
    style = _STYLE + marks.STYLE + frontier.STYLE + trials.STYLE + drops.STYLE + heatmap.STYLE + routes.STYLE
    said = verdict(phrases.verdict(result), result.chosen.within(result.budget))
    return page(title, said, _cards(result), *sections, style=style)


def _warned(result: CalibrationResult) -> list[Content]:
    few = phrases.few_rows(result.budget, result.settings.metrics, result.settings.rows)
    return [h("p", few)] if few else []


def _cards(result: CalibrationResult) -> Html:
    chosen = result.chosen
    worst = chosen.worst(result.budget)
    allowed = f", budget {budget(result, worst.task)}" if worst.task in result.budget else ""
    cards = [
        _card(f"{megabytes(chosen)} MB", f"size, {number(chosen.bytes_ratio)} of fp32"),
        _card(f"{number(chosen.milliseconds)} ms", f"latency, {number(chosen.latency_ratio)} of fp32"),
        _card(number(worst.points), join(["points, the worst drop, on ", clipped(worst.task), allowed])),
    ]
    if len(chosen.drops) > 1:
        cards.append(_card(number(chosen.mean), f"points, the mean drop of {counted(len(chosen.drops), 'task')}"))
    return h("div", *cards, class_="cards")


def _card(value: str, what: Content) -> Html:
    return h("div", h("b", value), h("span", what), class_="card")


def _frontier(result: CalibrationResult) -> list[Content]:
    plots = frontier.frontier(result)
    if plots is None:
        return []
    less = ", less what that task may drop by. " if result.common_budget is None and result.budget else ". "
    said = (
        "Each mark is a trial, with its number in the table below. Further left is smaller or faster, further down "
        f"drops less: its height is the drop of the task that fares worst{less}A drop is counted in "
    )
    return [h("p", said, h("b", "points"), ": 100 times by how much the task's metric is below fp32's."), plots]


def _trials(result: CalibrationResult) -> list[Content]:
    said = (
        "Everything that was tried. A trial is within the budget when every task is; its worst drop is the one that is "
        "furthest past its budget, or nearest to it. Size and latency are parts of fp32's."
    )
    return [h("p", said), trials.trials_table(result)]


def _drops(result: CalibrationResult) -> Html | None:
    trial = result.shown
    if trial is None:
        return None
    said = (
        "The dot is the drop against fp32 in points, the line its 95 % interval: where the drop would be, 19 times out "
        "of 20, had other rows of the same kind been drawn. Below zero a task gains. The dashed line is the budget."
    )
    content: list[Content] = [h("p", said), drops.drops_table(trial, result.budget)]
    if not all(drop.labelled for drop in trial.drops):
        content.append(
            h("p", "Tasks without labels are measured against fp32's own answers, for which the metric is 1.")
        )
    if trial.kept:
        names, prefix = readable(trial.kept)
        many = "names many" if len(names) > 8 else "names"
        items = [h("li", name) for name in names.values()]
        heading = h("h3", f"{counted(len(names), 'layer')} kept in float16")
        content += [heading, left_out(prefix), h("ul", *items, class_=many)]
    which = trial.name if trial is result.chosen else f"{trial.name}, the closest"
    return section(f"Drops of {which}", *content)


def _sensitivity(result: CalibrationResult) -> list[Content]:
    found = result.sensitivity
    if found is None:
        return []
    worst, drawn, prefix = heatmap.sensitivity_map(found, result.chosen.kept)
    count = len(found.layers)
    said: list[Content] = [
        f"What happens to each task when this layer alone is stored as {found.scheme}. The number is a ",
        h("b", "divergence"),
        ": how far the answers move from fp32's, from 0 (not at all) to 100 (entirely different). It sees changes that "
        "are too small to turn an answer, so it is not comparable with points.",
    ]
    return [
        h("p", *said),
        h("h3", "The most sensitive"),
        worst,
        h("h3", f"All {count}, in the order of the graph" if count > 1 else "The only one"),
        h("p", "Each shade is for numbers twice as large as the one before."),
        left_out(prefix),
        drawn,
    ]
