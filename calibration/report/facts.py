"""What was calibrated, on what, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eptx._html import Content, h, join
from eptx.calibration.report.phrases import budgets, counted
from eptx.calibration.report.view import View, section

_GOALS = {"size": "the smallest bundle within the budget", "latency": "the fastest bundle within the budget"}


def facts(calibration: Mapping[str, Any], view: View) -> list[Content]:
    """A list of names and values; the fingerprints are folded away."""
    settings = section(calibration, "settings")
    entries = {
        "Tasks": ", ".join(map(str, calibration.get("tasks") or ())),
        "Data": ", ".join(map(str, settings.get("data") or ())),
        "Rows": _rows(section(settings, "rows")),
        "Labels": _labels(section(settings, "labelled")),
        "Budget": budgets(view) if view.budgets else "",
        "Goal": _GOALS.get(view.goal, view.goal) if view.trials else "",
        "Measured on": _machine(settings),
        "Made by": str(calibration.get("generator") or ""),
    }
    known = {name: value for name, value in entries.items() if value}
    prints = {str(name): str(value) for name, value in section(calibration, "fingerprints").items() if value}
    folded = h("details", h("summary", "Fingerprints"), _list(prints)) if prints else None
    return [_list(known) if known else None, folded]


def _list(entries: Mapping[str, str]) -> Content:
    return h("dl", *(join([h("dt", name), h("dd", value)]) for name, value in entries.items()))


def _rows(rows: Mapping[str, int]) -> str:
    if not rows:
        return ""
    counts = sorted(rows.values())
    if len(counts) == 1:
        return str(counts[0])
    each = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return f"{sum(counts)}, {each} of a task"


def _labels(labelled: Mapping[str, bool]) -> str:
    without = [task for task, known in labelled.items() if not known]
    if not without:
        return ""
    return f"none of {', '.join(without)}: measured against fp32's answers"


def _machine(settings: Mapping[str, Any]) -> str:
    said = [str(settings["machine"])] if settings.get("machine") else []
    if settings.get("threads"):
        said.append(counted(int(settings["threads"]), "thread"))
    if settings.get("timed"):
        said.append(f"latency of {settings['timed']}")
    return ", ".join(said)
