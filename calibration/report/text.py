"""The report as tables for a terminal."""

from __future__ import annotations

from eptx.calibration.report.phrases import (
    budget,
    counted,
    few_rows,
    interval,
    megabytes,
    number,
    verdict,
    worst_interval,
)
from eptx.calibration.result import CalibrationResult
from eptx.calibration.search.trial import Trial, is_within
from eptx.reports.text_table import aligned


def report_text(result: CalibrationResult) -> str:
    """The verdict, a warning where rows are few, the trials, and of the chosen one drops and kept layers.

    Where fp32 was chosen, the trial that came closest is shown instead.
    """
    warned = few_rows(result.budget, result.settings.metrics, result.settings.rows)
    blocks = [verdict(result), *([warned] if warned else []), _trials(result)]
    shown = result.shown
    if shown is not None:
        blocks.append(f"{shown.name}, by task\n{_drops(result, shown)}")
    if shown is not None and shown.kept:
        kept = "".join(f"\n  {name}" for name in shown.kept)
        blocks.append(f"{counted(len(shown.kept), 'layer')} kept in float16{kept}")
    return "\n\n".join(blocks).replace("\u2212", "-").replace("–", "-")


def _trials(result: CalibrationResult) -> str:
    rows = [["", "trial", "MB", "of fp32", "latency", "worst drop", "95 % interval", "budget"]]
    for trial in result.trials:
        worst = trial.worst(result.budget)
        mark = "*" if trial is result.chosen else ""
        costs = [megabytes(trial), number(trial.bytes_ratio), number(trial.latency_ratio)]
        drop = [f"{number(worst.points)} {worst.task}", worst_interval(result, trial)]
        rows.append([mark, trial.name, *costs, *drop, "within" if trial.within(result.budget) else "past"])
    return "\n".join(aligned(rows, "ttnnnttt"))


def _drops(result: CalibrationResult, trial: Trial) -> str:
    rows = [["", "task", "points", "95 % interval", "budget", "metric", "fp32", "found", "rows"]]
    for drop in trial.drops:
        metric = drop.metric if drop.labelled else f"{drop.metric} (of fp32's answers)"
        mark = "" if is_within(drop, result.budget) else "!"
        measured = [number(drop.reference, 4), number(drop.found, 4), str(drop.rows)]
        allowed = budget(result, drop.task)
        rows.append([mark, drop.task, number(drop.points), interval(drop), allowed, metric, *measured])
    return "\n".join(aligned(rows, "ttntntnnn"))
