"""Numbers, names and sentences of a report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from eptx.calibration.result import CalibrationResult
from eptx.calibration.search.trial import Budget, Trial, is_within
from eptx.runtime.measure import METRICS, Drop

_PRODUCT = re.compile(r"/(MatMul|Gemm)\w*$")
_WORD = re.compile(r"[^./]*[./]")
#: Metrics of answers that are right or wrong.
_DECIDED = {name for name, (kind, _) in METRICS.items() if kind in ("labels", "sets", "tokens")}


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


def worst_interval(result: CalibrationResult, trial: Trial) -> str:
    """Of a trial's worst drop; a dash for fp32, which the drops are measured against."""
    return "–" if trial is result.trials[0] else interval(trial.worst(result.budget))


def few_rows(budget: Budget, metrics: Mapping[str, str], rows: Mapping[str, int]) -> str | None:
    """A sentence on the tasks of which one row weighs more than the budget, if there are some.

    Of a correlation or a cosine no row has a weight of its own; their intervals say what they must.

    Args:
        budget: task -> points that it may drop.
        metrics: task -> metric.
        rows: task -> how many.
    """
    decided = [task for task in budget if metrics[task] in _DECIDED]
    few = {task: rows[task] for task in decided if 100 / rows[task] > budget[task]}
    if not few:
        return None
    task = min(few, key=lambda task: few[task])
    least = min(budget[task] for task in few)
    enough = f"; {math.ceil(100 / least)} rows a task (--rows) are the least for it" if least else ""
    which = "every task" if len(few) == len(metrics) else ", ".join(few)
    return (
        f"Few rows for the budget of {which}: of {task}'s {counted(few[task], 'row')} one is about "
        f"{points(100 / few[task])}, and {short(budget[task])} may drop{enough}."
    )


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
    chosen, better = result.chosen, "faster" if result.settings.goal == "latency" else "smaller"
    beside = [
        trial for trial in result.trials if trial.within(result.budget) and result.cost(trial) < result.cost(chosen)
    ]
    also = "".join(
        f" {trial.name[:1].upper()}{trial.name[1:]} is {better}, and within the budget too." for trial in beside
    )
    if chosen is not result.trials[0]:
        return f"Chosen: {chosen.name}. {_costs(chosen)}{_drops(result, chosen)}.{also}"
    start = f"Chosen: {chosen.name}."
    if len(result.trials) == 1:
        return f"{start} Nothing else was tried."
    if also:
        return f"{start} Of what was searched, nothing {better} keeps every task within its budget.{also}"
    closest = result.closest
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
    allowed = result.budget.get(worst.task)
    if all(drop.points <= 0 for drop in trial.drops):
        said = "no task drops"
    else:
        which = (
            "the worst drop" if allowed is None or result.common_budget is not None else "the drop nearest its budget"
        )
        said = f"{which} is {_apart(worst.points, allowed)}, on {worst.task}"
    if allowed is None:
        return f"; {said}"
    where = "within" if is_within(worst, result.budget) else "past"
    return f"; {said}, {where} the budget of {points(allowed)}{_unsure(result, trial)}"


def _unsure(result: CalibrationResult, trial: Trial) -> str:
    """That the rows do not settle whether the tasks keep to their budgets, where a trial within them is so unsure."""
    allowed = result.budget
    reach = [d for d in trial.drops if d.task in allowed and d.high > allowed[d.task]]
    if not reach or not trial.within(allowed):
        return ""
    widest = max(reach, key=lambda drop: drop.high - allowed[drop.task])
    whose, on = f"the 95 % interval of {widest.task} reaches", ""
    if len(reach) > 1:
        whose, on = f"the 95 % intervals of {len(reach)} tasks reach", f" on {widest.task}"
    return f". These rows do not settle it: {whose} past the budget, to {points(widest.high)}{on}"


def _apart(value: float, allowed: float | None) -> str:
    """Points, with a third decimal where two would not tell them from what is allowed or from nothing."""
    if value and allowed is not None and value != allowed and short(value) in (short(allowed), "0"):
        return f"{number(value, 3)} points"
    return points(value)


def _but(result: CalibrationResult, trial: Trial) -> str:
    worst = trial.worst(result.budget)
    if not math.isfinite(worst.points):
        return f", could not be measured on {worst.task}"
    allowed = f", where {budget(result, worst.task)} would be within the budget" if worst.task in result.budget else ""
    return f", drops by {points(worst.points)} on {worst.task}{allowed}"
