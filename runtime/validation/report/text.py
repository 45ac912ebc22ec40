"""The report as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from eptx.reports.text_table import aligned
from eptx.runtime.ort.providers import describe_nodes
from eptx.runtime.validation.check import Check, How
from eptx.runtime.validation.comparison.results import BackendReport, TaskReport
from eptx.runtime.validation.distance import LIMIT
from eptx.runtime.validation.quantizing import BudgetedDrop
from eptx.runtime.validation.report.report import Report

_HOWS: tuple[How, ...] = ("compared", "run", "unchecked")


def report_text(report: Report) -> str:
    """A table for every backend, and at the end a line that sums each of them up."""
    lines = []
    for provider in report.providers:
        lines += _provider_lines(provider)
    lines += _drop_lines(report.drops)
    lines += [f"{'pass' if one.within else 'fail'}: {one.sentence}" for one in report.divergences]
    live = report.live
    if live is not None:
        agreement = live.group_agreement
        agrees = "" if agreement is None else f"the live route's group agrees on {agreement:.1%}; "
        lines.append(
            f"frozen route, on {live.rows} rows: {agrees}"
            f"outputs differ by {max(live.relative_rms.values()):.2g} of their size"
        )
    lines += _check_lines(report.checks)
    if report.seconds:
        lines.append(f"took {report.seconds.sentence}")
    lines += [_verdict(provider) for provider in report.providers]
    return "\n".join(lines)


def checks_summary(checks: Sequence[Check]) -> str:
    """How many parts were compared, only run, and unchecked."""
    return ", ".join(f"{sum(check.how == how for check in checks)} {how}" for how in _HOWS)


def _check_lines(checks: Sequence[Check]) -> list[str]:
    if not checks:
        return []
    wrong = [f"fail: {check.name}: {check.wrong}" for check in checks if check.wrong is not None]
    unseen = [f"not checked: {check.name}: {check.why}" for check in checks if check.how == "unchecked"]
    return [*wrong, *unseen, f"checks: {checks_summary(checks)}"]


#: The columns of what is lost.
DROPS = ("task", "metric", "fp32", "bundle", "points lost", "95 %", "budget", "rows", "verdict")


def drop_cells(drop: BudgetedDrop) -> tuple[str, ...]:
    """One task's cells of `DROPS`."""
    lost = drop.drop
    return (
        lost.task,
        lost.metric if lost.labelled else f"{lost.metric} with fp32",
        f"{lost.reference:.3f}",
        f"{lost.found:.3f}",
        f"{lost.points:.2f}",
        f"{lost.low:.1f} to {lost.high:.1f}",
        "-" if drop.budget is None else f"{drop.budget:g}",
        str(lost.rows),
        {None: "-", True: "pass", False: "fail"}[drop.within],
    )


def _drop_lines(drops: Sequence[BudgetedDrop]) -> list[str]:
    if not drops:
        return []
    mean = sum(one.drop.points for one in drops) / len(drops)
    over = [f"fail: {one.sentence}" for one in drops if one.within is False]
    table = aligned([DROPS, *map(drop_cells, drops)], "t" * len(DROPS))
    return [*table, *over, f"quantizing loses {mean:.2f} points on average of {len(drops)} tasks"]


def _provider_lines(provider: BackendReport) -> list[str]:
    generates = any(task.greedy is not None for task in provider.tasks)
    last = "greedy" if generates else "metric"
    header = ("task", "error / noise", "noise floor", "adapter / noise", "argmax", last, "rows", "verdict")
    lines = [f"{provider.name}:", *aligned([header, *map(_cells, provider.tasks)], "t" * len(header))]
    lines += [line for task in provider.tasks for line in notes(task)]
    lines += [f"{provider.name}: {describe_nodes(provider.nodes)}"] if provider.nodes else []
    bad = [task for task in provider.tasks if task.verdict != "pass"]
    return [*lines, *(f"{task.verdict}: {task.sentence}" for task in bad)]


def _verdict(provider: BackendReport) -> str:
    worst = max(provider.tasks, key=lambda task: task.worst[1].ratio)
    name, measured = worst.worst
    verdict = "failed" if provider.blocking else "passed"
    where = f"worst {measured.ratio:.3g} of {LIMIT:g} noise floors, task {worst.task}, {name}"
    return f"{provider.name}: {verdict}; {where}"


def notes(task: TaskReport) -> list[str]:
    """What counts for no verdict: where greedy tokens first differ, and what rounded activations change."""
    lines = []
    first = None if task.greedy is None else task.greedy.first_disagreement
    if first is not None:
        lines.append(
            f"{task.task}: the first greedy token that differs is number {first.token + 1} of {first.batch}, row "
            f"{first.row}: the reference prefers its own by {first.margin:.2g}"
        )
    if task.rounded is not None:
        greedy = task.rounded.greedy
        said = f", greedy tokens agree in {greedy.agreement:.1%}" if greedy is not None else ""
        lines.append(
            f"{task.task}: activations of 8 bits, as shipped, change the outputs by "
            f"{max(task.rounded.relative_rms.values()):.2g} of their size{said}"
        )
    return lines


def _cells(task: TaskReport) -> tuple[str, ...]:
    measured = task.worst[1]
    relative = float(measured.noise) / float(measured.scale) if measured.scale else 0.0
    metric = task.metric
    return (
        task.task,
        f"{measured.ratio:.3g}",
        f"{relative:.1e}",
        "-" if task.effect_ratio is None else f"{task.effect_ratio:.3g}",
        "-" if task.argmax_agreement is None else f"{task.argmax_agreement:.1%}",
        f"{task.greedy.agreement:.1%} of {task.greedy.tokens}"
        if task.greedy is not None
        else "-"
        if metric is None
        else f"{metric.name} {metric.bundle:.3f} ({metric.reference:.3f})",
        f"{task.rows}" + (f" (+{task.rows_set_aside} tied)" if task.rows_set_aside else ""),
        task.verdict,
    )
