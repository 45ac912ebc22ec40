"""Latency of every mode over that of the base graph, all in one process.

Each round runs every model once, the base before each, in an order that turns round every time; a model's number is the
median of its ratios to the base run beside it. The base against itself says how far the machine can be trusted.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eptx.runtime.timing import TimedModel

SHAPES = [(1, 16), (1, 128), (8, 32), (8, 128)]
_WARM_UP = 3
#: Short runs are measured more often: they scatter more.
_MORE = {1: 4}


@dataclass(frozen=True)
class Contender:
    """A model that is measured against the base.

    Attributes:
        path: a bundle or an .onnx file.
        native: whether its operators run as native kernels.
        task_ids: what the rows of a batch ask for in turn; all of the bundle's tasks when None.
    """

    path: Path
    native: bool = True
    task_ids: Sequence[int] | None = None


def measure(
    base: Path, contenders: Mapping[str, Contender], *, pairs: int, threads: int, shapes: Sequence[tuple[int, int]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Contender -> shape -> "ratio" to the base (median), its "low" and "high" quartile, and "milliseconds"."""
    against = TimedModel(base, threads=threads)
    models = {
        name: TimedModel(one.path, threads=threads, native=one.native, task_ids=one.task_ids)
        for name, one in contenders.items()
    }
    table: dict[str, dict[str, dict[str, float]]] = {name: {} for name in models}
    for shape in shapes:
        for name, row in _shape(against, models, shape, pairs * _MORE.get(shape[0], 1)).items():
            table[name]["{}x{}".format(*shape)] = row
    return table


def _shape(
    base: TimedModel, models: Mapping[str, TimedModel], shape: tuple[int, int], rounds: int
) -> dict[str, dict[str, float]]:
    base_feeds = base.feeds(*shape)
    feeds = {name: model.feeds(*shape) for name, model in models.items()}
    ratios: dict[str, list[float]] = {name: [] for name in models}
    times: dict[str, list[float]] = {name: [] for name in models}
    for round_ in range(_WARM_UP + rounds):
        order = list(models) if round_ % 2 else list(reversed(models))
        for place, name in enumerate(order):
            first_base = (round_ + place) % 2 == 0
            before = base.run(base_feeds) if first_base else 0.0
            own = models[name].run(feeds[name])
            against = before if first_base else base.run(base_feeds)
            if round_ >= _WARM_UP:
                ratios[name].append(own / against)
                times[name].append(own)
    return {name: _summary(ratios[name], times[name]) for name in models}


def _summary(ratios: Sequence[float], times: Sequence[float]) -> dict[str, float]:
    low, high = np.quantile(ratios, [0.25, 0.75])
    return {
        "ratio": statistics.median(ratios),
        "low": float(low),
        "high": float(high),
        "milliseconds": 1e3 * statistics.median(times),
    }


def show(table: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Prints the table: median ratio, and the quartiles behind it."""
    shapes = list(next(iter(table.values())))
    print(f"  {'':<26}" + "".join(f"{shape:<22}" for shape in shapes))
    for name, rows in table.items():
        cells = (f"{row['ratio']:.3f} ({row['low']:.3f}-{row['high']:.3f})" for row in rows.values())
        print(f"  {name:<26}" + "".join(f"{cell:<22}" for cell in cells), flush=True)
