"""What was calibrated, on what, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping

from eptx._version import __version__
from eptx.calibration.report.phrases import budgets, counted
from eptx.calibration.result import CalibrationResult, Settings
from eptx.reports.html import Content, h, join

_GOALS = {"size": "the smallest bundle within the budget", "latency": "the fastest bundle within the budget"}


def facts(result: CalibrationResult) -> list[Content]:
    """A list of names and values; the fingerprints are folded away."""
    settings = result.settings
    entries = {
        "Tasks": ", ".join(result.tasks),
        "Data": ", ".join(settings.data),
        "Rows": _rows(settings.rows),
        "Labels": _labels(settings.labelled),
        "Budget": budgets(result) if result.budget else "",
        "Goal": _GOALS[settings.goal],
        "Measured on": _machine(settings),
        "Made by": f"eptx {__version__}",
    }
    known = {name: value for name, value in entries.items() if value}
    return [_list(known), h("details", h("summary", "Fingerprints"), _list(result.fingerprints))]


def _list(entries: Mapping[str, str]) -> Content:
    return h("dl", *(join([h("dt", name), h("dd", value)]) for name, value in entries.items()))


def _rows(rows: Mapping[str, int]) -> str:
    counts = sorted(rows.values())
    if len(counts) == 1:
        return str(counts[0])
    each = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return f"{sum(counts)}, {each} of a task"


def _labels(labelled: Mapping[str, bool]) -> str:
    without = [task for task, known in labelled.items() if not known]
    return f"none of {', '.join(without)}: measured against fp32's answers" if without else ""


def _machine(settings: Settings) -> str:
    threads = [] if settings.threads is None else [counted(settings.threads, "thread")]
    return ", ".join([settings.machine, *threads, f"latency of {settings.timed}"])
