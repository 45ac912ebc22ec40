"""A report to read in a browser: one file, no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from eptx.exporter.validation.distance import LIMIT, WORST
from eptx.exporter.validation.report.report import Measured, ProviderReport, Report, TaskReport
from eptx.exporter.validation.report.text import DROPS, drop_cells, notes, parts_sentence

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2330; }
h1, h2, h3 { line-height: 1.2; } table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #dde2ea; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } summary { cursor: pointer; margin: .3rem 0; }
.pass { color: #10703c; } .fail { color: #b3261e; font-weight: 600; } .undecided { color: #8a5a00; font-weight: 600; }
.bar { display: inline-block; height: .6rem; background: #5b7fb5; } .over { background: #b3261e; }
"""
_BAR = 160


def report_html(report: Report) -> str:
    """The report as one HTML page."""
    verdict = "pass" if report.passed else "fail"
    facts = report.bundle
    title = f"{facts['mode']} {facts['method']} on {facts['model_type'] or 'a base model'}, {facts['precision']}"
    parts = [
        f"<h1>{escape(title)}: <span class='{verdict}'>{'passed' if report.passed else 'failed'}</span></h1>",
        f"<p class='fail'>{escape(report.reason)}</p>" if report.reason else "",
        "".join(f"<p class='undecided'>Warning: {escape(warning)}</p>" for warning in report.warnings),
        "<p>The trained model, loaded as PEFT loads it, runs in float64 and in the export's own type. Their distance "
        "is the noise floor; the bundle's distance from float64 is given in noise floors, the worse of root mean "
        f"square and largest. Up to {LIMIT:g} is rounding. The adapter's own effect, in the same unit, is what a "
        "bundle that ignores the adapter would score.</p>",
        *(_provider(provider) for provider in report.providers),
        _drops(report),
        _frozen(report),
        _parts(report),
        "<h2>Inputs</h2>",
        _table(
            ("batch", "shape", "padded"),
            ((i["name"], " x ".join(map(str, i["shape"])), "yes" if i["padded"] else "no") for i in report.inputs),
        ),
        f"<p>{report.redrawn} batches were drawn again because a router's choice was within rounding.</p>",
        "<h2>Seconds</h2>" + _table(("stage", "seconds"), report.seconds.items()) if report.seconds else "",
        "<h2>Fingerprints</h2>",
        _table(("of", "sha256"), facts["fingerprints"].items()),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _provider(provider: ProviderReport) -> str:
    header = (
        "task",
        "verdict",
        "error / noise",
        "at",
        "adapter / noise",
        "argmax agreement",
        "metric",
        "greedy tokens",
        "rows judged",
        "set aside",
    )
    rows = [_task_cells(task) for task in provider.tasks]
    details = "".join(_details(task) for task in provider.tasks)
    return f"<h2>Provider {escape(provider.name)}</h2>\n{_table(header, rows)}\n{details}"


def _drops(report: Report) -> str:
    """What quantizing loses, task by task."""
    if not report.drops:
        return ""
    rows = []
    for judged in report.drops:
        *cells, verdict = drop_cells(judged)
        rows.append(
            (*cells, _Raw(f"<span class='{verdict}'>{verdict}</span>") if judged.budget is not None else verdict)
        )
    said = (
        "<p>The bundle as it is shipped against the fp32 bundle of the same base and adapter, on the same rows: points "
        "are hundredths of the metric, the interval is of resampled rows. A task fails that loses more than its "
        "budget.</p>"
    )
    return f"<h2>What quantizing loses</h2>\n{said}{_table(DROPS, rows)}"


def _parts(report: Report) -> str:
    """What was held against its source by itself; what is wrong stands above the list of all."""
    if not report.parts:
        return ""
    wrong = "".join(f"<p class='fail'>{escape(f'{part.name}: {part.wrong}')}</p>" for part in report.wrong_parts)
    unseen = [part for part in report.parts if part.how == "neither"]
    rows = [(part.name, part.how, part.wrong or "", part.why or "") for part in report.parts]
    return (
        f"<h2>Parts</h2>\n{wrong}"
        + "".join(f"<p>Neither compared nor run: {escape(f'{part.name}: {part.why}')}</p>" for part in unseen)
        + f"<details><summary>{escape(parts_sentence(report.parts))}</summary>"
        + f"{_table(('part', 'how', 'what is wrong', 'why'), rows)}</details>"
    )


def _task_cells(task: TaskReport) -> tuple[object, ...]:
    name, measured = task.worst
    metric = task.metric
    return (
        task.task,
        _Raw(f"<span class='{task.verdict}'>{task.verdict}</span>"),
        f"{measured.ratio:.2f}" if float(measured.ratio) < WORST else "1e+30",
        task.failed_at or name,
        "-" if task.effect_ratio is None else f"{task.effect_ratio:.0f}",
        "-" if task.argmax_agreement is None else f"{task.argmax_agreement:.2%}",
        "-" if metric is None else f"{metric['name']} {metric['bundle']:.4f}, reference {metric['reference']:.4f}",
        "-" if task.greedy is None else f"{task.greedy['agreement']:.2%} of {task.greedy['tokens']}",
        task.rows,
        task.rows_set_aside,
    )


def _details(task: TaskReport) -> str:
    note = task.reason or task.undecided
    heading = f"{task.task}: {len(task.modules)} modules, {len(task.outputs)} outputs"
    rows = [_measured_cells(name, measured) for name, measured in (*task.modules.items(), *task.outputs.items())]
    header = ("module or output", "error / noise", "", "error", "noise floor", "size", "adapter's effect")
    opened = " open" if task.verdict == "fail" else ""
    said = f"<p class='{task.verdict}'>{escape(note)}</p>" if note else ""
    said += "".join(f"<p>{escape(line)}</p>" for line in notes(task))
    return f"<details{opened}><summary>{escape(heading)}</summary>{said}{_table(header, rows)}</details>\n"


def _measured_cells(name: str, measured: Measured) -> tuple[object, ...]:
    width = min(float(measured.ratio) / LIMIT, 1.0) * _BAR
    over = " over" if measured.ratio > LIMIT else ""
    bar = _Raw(f"<span class='bar{over}' style='width: {width:.0f}px'></span>")
    effect = "-" if measured.effect is None else f"{measured.effect:.3g}"
    sizes = (f"{value:.3g}" for value in (measured.error, measured.noise, measured.scale))
    return (name, f"{measured.ratio:.3g}", bar, *sizes, effect)


def _frozen(report: Report) -> str:
    live = report.live
    if live is None:
        return ""
    rows = ((name, f"{value:.3g}") for name, value in live["relative_rms"].items())
    return (
        "<h2>Frozen route against the live one</h2>"
        f"<p>The live route's group agrees on {live['group_agreement']:.1%} of {live['rows']} rows of the data. "
        "Difference of the outputs, root mean square over their size:</p>" + _table(("output", "difference"), rows)
    )


class _Raw(str):
    """Text that is HTML already."""


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["".join(f"<th>{escape(name)}</th>" for name in header)]
    lines += ["".join(_cell(value) for value in row) for row in rows]
    return "<table>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>"


def _cell(value: object) -> str:
    text = value if isinstance(value, _Raw) else escape(str(value))
    number = isinstance(value, int | float) or (isinstance(value, str) and value[:1].isdigit())
    return f"<td class='n'>{text}</td>" if number else f"<td>{text}</td>"
