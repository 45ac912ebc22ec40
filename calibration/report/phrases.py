"""Numbers, names and sentences of a report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from eptx.calibration.result import CalibrationResult
from eptx.calibration.search.trial import Trial, is_within
from eptx.runtime.measure import Drop

_PRODUCT = re.compile(r"/(MatMul|Gemm)\w*$")
_WORD = re.compile(r"[^./]*[./]")


def number(value: float, digits: int = 2) -> str:
    """With a fixed number of decimals and a true minus; a dash where it is not finite."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.") else text.replace("-", "\u2212")


def short(value: float) -> str:
    """With as many decimals as it needs, two at most."""
    text = number(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def megabytes(trial: Trial) -> str:
    """The size of a trial, without the unit."""
    return number(trial.bytes / 1e6, 1)


def divergence(value: float) -> str:
    """In four characters."""
    if value <= 0:
        return "0"
    return "<0.01" if value < 0.005 else number(value, 2 if value < 9.995 else 1)


def interval(drop: Drop) -> str:
    """Of a drop's points."""
    both = math.isfinite(drop.low) and math.isfinite(drop.high)
    return f"{number(drop.low)} to {number(drop.high)}" if both else "–"


def counted(count: int, what: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def points(value: float) -> str:
    """``1 point``, ``0.5 points``."""
    text = short(value)
    return f"{text} point" if text == "1" else f"{text} points"


def budget(result: CalibrationResult, task: str) -> str:
    """What a task may drop by, a dash where nothing was stated."""
    return short(result.budget[task]) if task in result.budget else "–"


def budgets(result: CalibrationResult) -> str:
    """What all tasks may drop by."""
    common = result.common_budget
    if common is not None:
        return f"{points(common)} for every task" if len(result.budget) > 1 else points(common)
    return ", ".join(f"{task} {short(value)}" for task, value in result.budget.items()) + " points"


def verdict(result: CalibrationResult) -> str:
    """What a calibration came to, in a sentence or two."""
    chosen = result.chosen
    if chosen is not result.trials[0]:
        return f"Chosen: {chosen.name}. {_costs(chosen)}{_drops(result, chosen)}."
    start = f"Chosen: {chosen.name}."
    if len(result.trials) == 1:
        return f"{start} Nothing else was tried."
    better, closest = "faster" if result.settings.goal == "latency" else "smaller", result.closest
    if closest is None:
        return f"{start} Nothing that was tried is {better}."
    but = _but(result, closest)
    return f"{start} No {better} trial keeps every task within its budget. The closest, {closest.name}{but}."


def readable(names: Iterable[str]) -> tuple[dict[str, str], str]:
    """Names without what most of them begin with, which comes second; names stay different from each other.

    The beginning ends with a whole word, and not right before a number: ``layer.0.attention`` says more than
    ``0.attention``.
    """
    plain = {name: _PRODUCT.sub("", name).strip("/") or name for name in names}
    prefix = _shared(list(plain.values()))
    cut = {name: text.removeprefix(prefix) for name, text in plain.items()}
    if len(set(cut.values())) < len(cut):
        return {name: name for name in plain}, ""
    return cut, prefix


def _shared(names: Sequence[str]) -> str:
    """The longest run of whole words that more than half of the names, and at least three, begin with."""
    prefix = ""
    while True:
        counts: dict[str, int] = {}
        for name in names:
            word = _WORD.match(name, len(prefix)) if name.startswith(prefix) else None
            if word is not None:
                counts[prefix + word[0]] = counts.get(prefix + word[0], 0) + 1
        longer = max(counts, key=lambda key: counts[key], default=prefix)
        behind = [name[len(longer) :] for name in names if name.startswith(longer)]
        if 2 * len(behind) <= len(names) or len(behind) < 3 or longer == prefix:
            return prefix
        if sum(rest[:1].isdigit() for rest in behind) * 2 > len(behind):
            return prefix
        prefix = longer


def _costs(trial: Trial) -> str:
    ratios = number(trial.bytes_ratio), number(trial.latency_ratio)
    return f"It takes {megabytes(trial)} MB, {ratios[0]} of fp32's, and {ratios[1]} of its time"


def _drops(result: CalibrationResult, trial: Trial) -> str:
    worst = trial.worst(result.budget)
    if not math.isfinite(worst.points):
        return f"; the drop on {worst.task} could not be measured"
    said = "no task drops" if worst.points <= 0 else f"the worst drop is {points(worst.points)}, on {worst.task}"
    if worst.task not in result.budget:
        return f"; {said}"
    where = "within" if is_within(worst, result.budget) else "past"
    return f"; {said}, {where} the budget of {points(result.budget[worst.task])}"


def _but(result: CalibrationResult, trial: Trial) -> str:
    worst = trial.worst(result.budget)
    if not math.isfinite(worst.points):
        return f", could not be measured on {worst.task}"
    allowed = f", where {budget(result, worst.task)} would be within the budget" if worst.task in result.budget else ""
    return f", drops by {points(worst.points)} on {worst.task}{allowed}"
