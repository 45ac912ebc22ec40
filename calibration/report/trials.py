"""The table of trials."""

from __future__ import annotations

from eptx._html import Content, Html, breakable, clipped, h, join, table
from eptx.calibration.report.phrases import interval, number
from eptx.calibration.report.view import Trial, View

STYLE = """
.trials tbody th { min-width: 7rem; padding-left: 1.7rem; text-indent: -1.7rem; }
.no { display: inline-block; width: 1.3rem; margin-right: .4rem; white-space: nowrap; text-indent: 0; text-align: right;
  color: var(--soft); font-variant-numeric: tabular-nums; }
"""
_HEADER = ("trial", "worst drop", "budget", "MB", "size", "latency", "ms", "on", "95 % interval")


def trials_table(view: View) -> Html:
    """All trials, numbered."""
    rows = [_row(trial) for trial in view.trials]
    return table(_HEADER, rows, kinds="tntnnnntn", label="Trials", class_="trials")


def _row(trial: Trial) -> list[Content]:
    worst = trial.worst
    name = [h("span", str(trial.number), class_="no"), breakable(trial.name)]
    if trial.chosen:
        name.append(join([" ", h("span", "chosen", class_="tag good")]))
    verdict = h("span", "within", class_="good") if trial.within else h("span", "past", class_="bad")
    return [
        join(name),
        "–" if worst is None else number(worst.points),
        verdict,
        number(trial.size, 1),
        number(trial.size_ratio),
        number(trial.time_ratio),
        number(trial.time),
        "–" if worst is None else clipped(worst.task),
        "–" if worst is None else interval(worst),
    ]
