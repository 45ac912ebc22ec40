"""The report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eptx.calibration.report.phrases import counted, interval, number, short, verdict
from eptx.calibration.report.view import Trial, View, read_view


def report_text(calibration: Mapping[str, Any]) -> str:
    """The verdict, the trials, and the drops by task and the kept layers of the trial that was chosen.

    Args:
        calibration: what ``calibration.json`` holds; where nothing but fp32 was good enough, the trial that came
            closest is shown instead.
    """
    view = read_view(calibration)
    blocks = [verdict(view)]
    if view.trials:
        blocks.append(_trials(view))
    shown = view.shown
    if shown is not None and shown.drops:
        blocks.append(f"{shown.name}, by task\n{_drops(shown)}")
    if shown is not None and shown.kept:
        kept = "".join(f"\n  {name}" for name in shown.kept)
        blocks.append(f"{counted(len(shown.kept), 'group')} kept in higher precision{kept}")
    return "\n\n".join(blocks).replace("\u2212", "-").replace("–", "-")


def _trials(view: View) -> str:
    rows = [["", "trial", "MB", "of fp32", "latency", "worst drop", "95 % interval", "budget"]]
    for trial in view.trials:
        worst = trial.worst
        lost = "" if worst is None else f"{number(worst.points)} {worst.task}"
        between = "" if worst is None else interval(worst)
        mark = "*" if trial.chosen else ""
        costs = [number(trial.size, 1), number(trial.size_ratio), number(trial.time_ratio)]
        rows.append([mark, trial.name, *costs, lost, between, "within" if trial.within else "past"])
    return _aligned(rows, "ttnnnttt")


def _drops(trial: Trial) -> str:
    rows = [["", "task", "points", "95 % interval", "budget", "metric", "fp32", "found", "rows"]]
    for drop in trial.drops:
        metric = drop.metric if drop.labelled else f"{drop.metric} (of fp32's answers)"
        budget = "–" if drop.budget is None else short(drop.budget)
        mark = "" if drop.within else "!"
        measured = [number(drop.reference, 4), number(drop.found, 4), str(drop.rows)]
        rows.append([mark, drop.task, number(drop.points), interval(drop), budget, metric, *measured])
    return _aligned(rows, "ttntntnnn")


def _aligned(rows: Sequence[Sequence[str]], kinds: str) -> str:
    """Columns as wide as their widest cell, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(kinds))]
    lines = []
    for row in rows:
        cells = zip(row, widths, kinds, strict=True)
        lines.append("  ".join(c.rjust(w) if kind == "n" else c.ljust(w) for c, w, kind in cells).rstrip())
    return "\n".join(lines)
