"""The table of trials."""

from __future__ import annotations

from eptx.calibration.report.phrases import megabytes, number, worst_interval
from eptx.calibration.result import CalibrationResult
from eptx.calibration.search.trial import Trial
from eptx.reports.html import Content, Html, breakable, clipped, h, join, table

STYLE = """
.trials tbody th { min-width: 7rem; padding-left: 1.7rem; text-indent: -1.7rem; }
.no { display: inline-block; width: 1.3rem; margin-right: .4rem; white-space: nowrap; text-indent: 0; text-align: right;
  color: var(--soft); font-variant-numeric: tabular-nums; }
"""
_HEADER = ("trial", "worst drop", "budget", "MB", "size", "latency", "ms", "on", "95 % interval")


def trials_table(result: CalibrationResult) -> Html:
    """All trials, numbered."""
    rows = [_row(result, number, trial) for number, trial in enumerate(result.trials, 1)]
    return table(_HEADER, rows, kinds="tntnnnntn", label="Trials", class_="trials")


def _row(result: CalibrationResult, index: int, trial: Trial) -> list[Content]:
    worst = trial.worst(result.budget)
    name = [h("span", str(index), class_="no"), breakable(trial.name)]
    if trial is result.chosen:
        name.append(join([" ", h("span", "chosen", class_="tag good")]))
    within = trial.within(result.budget)
    return [
        join(name),
        number(worst.points),
        h("span", "within", class_="good") if within else h("span", "past", class_="bad"),
        megabytes(trial),
        number(trial.bytes_ratio),
        number(trial.latency_ratio),
        number(trial.milliseconds),
        clipped(worst.task),
        worst_interval(result, trial),
    ]
