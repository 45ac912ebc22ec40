"""The numbers of all methods as tables in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.glue.data import TASKS
from tests.bench.glue.methods import Method

_COSTS = (
    "method",
    "parameters",
    "mean, model",
    "bundle",
    "mean, bundle",
    "same answers",
    "validation",
    "bytes / base",
    "latency / base",
)
_COUNTED = {"cola": "Matthews", "mrpc": "F1", "stsb": "Spearman"}


def table(out: Path, runs: Mapping[Method, Path]) -> str:
    """What is there of these trainings: their cost and their metrics, of the model and of its bundles."""
    trained = {method: _read(run / "train.json") for method, run in runs.items()}
    timed = _read(out / "latency.json").get("methods", {})
    costs = [row for method, run in runs.items() for row in _costs(run, method, trained[method], timed)]
    tasks = ["method", "rate", *(f"{task} ({_COUNTED[task]})" if task in _COUNTED else task for task in TASKS), "mean"]
    scores = [_scores(method, own) for method, own in trained.items()]
    noise = f"\nThe base against itself: {_ratio(timed['base'])}.\n" if timed else ""
    return "\n".join(_lines(_COSTS, costs)) + "\n" + noise + "\n" + "\n".join(_lines(tasks, scores)) + "\n"


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def _costs(run: Path, method: Method, trained: Mapping[str, Any], timed: Mapping[str, Any]) -> Iterator[list[str]]:
    """A line of each bundle, or of the model alone."""
    setting = f" ({method.setting})" if method.setting else ""
    first = [method.title + setting, f"{trained['parameters']:,}", f"{_mean(trained):.2f}"]
    for variant in method.variants:
        found = _read(run / f"{variant.name}.json")
        if found:
            ratio = timed.get(f"{method.name} {variant.name}")
            yield [
                *first,
                variant.title,
                f"{_mean(found):.2f}",
                f"{found['same_answer']:,} of {found['rows']:,}",
                "passed" if found["validated"] else "FAILED",
                f"{found['bytes_over_base']:.3f}",
                _ratio(ratio) if ratio else "",
            ]
    if not any((run / f"{variant.name}.json").exists() for variant in method.variants):
        yield [*first, *[""] * (len(_COSTS) - len(first))]


def _ratio(timed: Mapping[str, float]) -> str:
    return f"{timed['ratio']:.2f} ({timed['low']:.2f}-{timed['high']:.2f})"


def _scores(method: Method, trained: Mapping[str, Any]) -> list[str]:
    own = [f"{100 * trained['tasks'][task]['headline']:.1f}" for task in TASKS]
    return [method.title, f"{trained['rate']:g}", *own, f"{_mean(trained):.2f}"]


def _mean(found: Mapping[str, Any]) -> float:
    """Of the tasks' metrics, in points."""
    values: list[float] = [found["tasks"][task]["headline"] for task in TASKS]
    return 100 * sum(values) / len(values)


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
