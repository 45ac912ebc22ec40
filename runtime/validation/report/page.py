"""The report as one page for the browser."""

from __future__ import annotations

from collections.abc import Sequence

from eptx.reports.html import Content, Html, breakable, h, table
from eptx.reports.page import page, section, verdict
from eptx.runtime.ort.providers import describe_nodes
from eptx.runtime.validation.comparison.results import BackendReport, Measured, TaskReport
from eptx.runtime.validation.distance import LIMIT, WORST
from eptx.runtime.validation.report.report import Report, described
from eptx.runtime.validation.report.text import DROPS, checks_summary, drop_cells, notes

_STYLE = """
.undecided { color: var(--warm); }
.bar { display: inline-block; height: .6rem; background: var(--accent); } .bar.over { background: var(--bad); }
"""
_BAR = 160
#: The class of each verdict.
_COLORS = {"pass": "good", "fail": "bad", "undecided": "undecided"}
_METHOD = (
    "The trained model, loaded as PEFT loads it, runs in float64 and in the export's own type. The distance between "
    "the two is the noise floor. The bundle's distance from float64 is given in noise floors, as the worse of root "
    f"mean square and largest error: up to {LIMIT:g} is rounding. The adapter's own effect, in the same unit, is what "
    "a bundle that ignores the adapter would score."
)
_LOSS = (
    "The bundle as it is shipped is compared with the fp32 bundle of the same base and adapter, on the same rows. "
    "Points are hundredths of the metric; the interval is of resampled rows. A task fails if it loses more than its "
    "budget."
)
_TASK = (
    "task, verdict, error / noise, at, adapter / noise, argmax agreement, metric, greedy tokens, compared, set aside"
)
_VALUE = "module or output, error / noise, , error, noise floor, size, adapter's effect"


def report_html(report: Report) -> str:
    """The whole page."""
    manifest = report.manifest
    base = manifest.model_type or "a base model"
    result = "passed" if report.passed else "failed"
    return page(
        f"Validation: {manifest.mode} {manifest.method} on {base}, {manifest.precision}",
        verdict(f"{result}: {report.reason}" if report.reason else result, report.passed),
        *(h("p", f"Warning: {warning}", class_="undecided") for warning in report.warnings),
        h("p", _METHOD),
        h("p", f"The trained model was run by {report.proof}, where the proof was recorded.") if report.proof else None,
        *(_backend(provider) for provider in report.providers),
        section("What quantizing loses", *_drops(report), *_divergences(report)),
        section("Frozen route against the live one", *_live(report)),
        section("Checks", *_checks(report)),
        section("Inputs", *_inputs(report)),
        section("Seconds", _pairs("stage", "seconds", [(k, str(v)) for k, v in report.seconds.items()], "n")),
        section("Fingerprints", _pairs("of", "sha256", list(manifest.fingerprints.items()))),
        style=_STYLE,
    )


def _backend(backend: BackendReport) -> Html | None:
    rows = [_task_cells(task) for task in backend.tasks]
    tasks = table(_TASK.split(", "), rows, kinds="ttntnntnnn", label=backend.name)
    nodes = h("p", f"Ran {describe_nodes(backend.nodes)}.") if backend.nodes else None
    return section(f"Backend {backend.name}", tasks, nodes, *map(_details, backend.tasks))


def _task_cells(task: TaskReport) -> list[Content]:
    name, measured = task.worst
    metric = task.metric
    return [
        task.task,
        _word(task.verdict),
        f"{measured.ratio:.2f}" if float(measured.ratio) < WORST else "1e+30",
        breakable(task.failed_at or name),
        "-" if task.effect_ratio is None else f"{task.effect_ratio:.0f}",
        "-" if task.argmax_agreement is None else f"{task.argmax_agreement:.2%}",
        "-" if metric is None else f"{metric.name} {metric.bundle:.4f}, reference {metric.reference:.4f}",
        "-" if task.greedy is None else f"{task.greedy.agreement:.2%} of {task.greedy.tokens}",
        str(task.rows),
        str(task.rows_set_aside),
    ]


def _details(task: TaskReport) -> Html:
    """A task's modules and outputs; shown at once if it fails."""
    note = task.reason or task.undecided
    heading = f"{task.task}: {len(task.modules)} modules, {len(task.outputs)} outputs"
    rows = [_value_cells(name, measured) for name, measured in (*task.modules.items(), *task.outputs.items())]
    return h(
        "details",
        h("summary", heading),
        h("p", note, class_=_COLORS[task.verdict]) if note else None,
        *(h("p", line) for line in notes(task)),
        table(_VALUE.split(", "), rows, kinds="tntnnnn", label=heading),
        open="" if task.verdict == "fail" else None,
    )


def _value_cells(name: str, measured: Measured) -> list[Content]:
    width = min(float(measured.ratio) / LIMIT, 1.0) * _BAR
    over = " over" if measured.ratio > LIMIT else ""
    bar = h("span", class_=f"bar{over}", style=f"width: {width:.0f}px")
    sizes = [measured.error, measured.noise, measured.scale]
    effect = "-" if measured.effect is None else f"{measured.effect:.3g}"
    return [name, f"{measured.ratio:.3g}", bar, *(f"{value:.3g}" for value in sizes), effect]


def _drops(report: Report) -> list[Content]:
    if not report.drops:
        return []
    rows: list[list[Content]] = []
    for drop in report.drops:
        *cells, word = drop_cells(drop)
        rows.append([*cells, word if drop.budget is None else _word(word)])
    return [h("p", _LOSS), table(DROPS, rows, kinds="ttnnnnnnt", label="What quantizing loses")]


def _divergences(report: Report) -> list[Content]:
    return [h("p", one.sentence, class_="good" if one.within else "bad") for one in report.divergences]


def _live(report: Report) -> list[Content]:
    live = report.live
    if live is None:
        return []
    agreement = live.group_agreement
    agrees = "" if agreement is None else f"The live route's group agrees on {agreement:.1%} of them. "
    said = f"On {live.rows} rows of the data. {agrees}Difference of the outputs, root mean square over their size:"
    rows = [(name, f"{value:.3g}") for name, value in live.relative_rms.items()]
    return [h("p", said), _pairs("output", "difference", rows, "n")]


def _checks(report: Report) -> list[Content]:
    """What is wrong and what is unchecked stand above the list of all."""
    if not report.checks:
        return []
    rows = [(check.name, check.how, check.wrong, check.why) for check in report.checks]
    return [
        *(h("p", f"{check.name}: {check.wrong}", class_="bad") for check in report.failed_checks),
        *(h("p", f"Not checked: {check.name}: {check.why}") for check in report.checks if check.how == "unchecked"),
        h(
            "details",
            h("summary", checks_summary(report.checks)),
            table(("check", "how", "what is wrong", "why"), rows, kinds="tttt", label="Checks"),
        ),
    ]


def _inputs(report: Report) -> list[Content]:
    rows: list[Sequence[Content]] = []
    for batch in map(described, report.batches):
        shape = " x ".join(map(str, batch["shape"]))
        rows.append((batch["name"], shape, "yes" if batch["padded"] else "no"))
    said = f"{report.redrawn} batches were drawn again because a router's choice was within rounding."
    return [table(("batch", "shape", "padded"), rows, kinds="ttt", label="Inputs"), h("p", said)]


def _pairs(name: str, value: str, rows: Sequence[tuple[str, str]], kind: str = "t") -> Html | None:
    return table((name, value), rows, kinds=f"t{kind}", label=name) if rows else None


def _word(verdict: str) -> Html:
    return h("span", verdict, class_=_COLORS[verdict])
