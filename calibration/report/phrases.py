"""Numbers and names as a reader sees them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from eptx.calibration.report.view import Drop, Trial, View

_PRODUCT = re.compile(r"/(MatMul|Gemm)\w*$")
_WORD = re.compile(r"[^./]*[./]")


def number(value: float | None, digits: int = 2) -> str:
    """With a fixed number of decimals and a true minus; a dash for what is not known."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.") else text.replace("-", "\u2212")


def short(value: float) -> str:
    """With as many decimals as it needs, two at most."""
    text = number(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def damage(value: float | None) -> str:
    """A divergence in four characters."""
    if value is None or value <= 0:
        return "–" if value is None else "0"
    return "<0.01" if value < 0.005 else number(value, 2 if value < 9.995 else 1)


def interval(drop: Drop) -> str:
    """Of a drop's points."""
    return "–" if drop.low is None or drop.high is None else f"{number(drop.low)} to {number(drop.high)}"


def counted(count: int, what: str) -> str:
    """``1 group``, ``2 groups``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def points(value: float) -> str:
    """``1 point``, ``0.5 points``."""
    text = short(value)
    return f"{text} point" if text == "1" else f"{text} points"


def budgets(view: View) -> str:
    """What tasks may lose."""
    if view.budget is not None:
        return f"{points(view.budget)} for every task" if len(view.budgets) > 1 else points(view.budget)
    return ", ".join(f"{task} {short(value)}" for task, value in view.budgets.items()) + " points"


def verdict(view: View) -> str:
    """What a calibration came to, in a sentence or two."""
    chosen = view.chosen
    if not view.trials:
        return "No setting was tried: this page shows what was measured of the adapter itself."
    if chosen is not None and chosen.number > 1:
        return f"Chosen: {chosen.name}. {_costs(chosen)}{_loses(chosen)}."
    start = f"Chosen: {'none' if chosen is None else chosen.name}."
    if len(view.trials) == 1:
        return f"{start} Nothing else was tried."
    better, closest = "faster" if view.goal == "latency" else "smaller", view.closest
    if closest is None:
        return f"{start} Nothing that was tried is {better}."
    return f"{start} No {better} trial keeps every task within its budget. The closest, {closest.name}{_but(closest)}."


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
    size, ratio, time = number(trial.size, 1), number(trial.size_ratio), number(trial.time_ratio)
    return f"It takes {size} MB, {ratio} of fp32's, and {time} of its time"


def _loses(trial: Trial) -> str:
    worst = trial.worst
    if worst is None:
        return ""
    if worst.points is None:
        return f"; what it loses on {worst.task} could not be measured"
    if worst.points <= 0:
        lost = "no task loses anything"
    else:
        lost = f"the worst drop is {points(worst.points)}, on {worst.task}"
    if worst.budget is None:
        return f"; {lost}"
    return f"; {lost}, {'within' if trial.within else 'past'} the budget of {points(worst.budget)}"


def _but(trial: Trial) -> str:
    worst = trial.worst
    assert worst is not None
    if worst.points is None:
        return f", could not be measured on {worst.task}"
    allowed = "" if worst.budget is None else f", where {short(worst.budget)} would be within the budget"
    return f", loses {points(worst.points)} on {worst.task}{allowed}"
