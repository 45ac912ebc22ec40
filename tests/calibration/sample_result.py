"""Results of calibrations to report, shaped as real ones are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from eptx.calibration.experts import Choice, ExpertStudy
from eptx.calibration.quantize.layers import Layer
from eptx.calibration.result import CalibrationResult, Sensitivity, Settings
from eptx.calibration.routes.study import RouteStudy
from eptx.calibration.routes.task_routes import CallRoutes, TaskRoutes
from eptx.calibration.search.trial import Trial
from eptx.exporter.adapters.routing.route import Route
from eptx.runtime.measure import Drop

TASKS = ("cola", "mnli", "mrpc", "qnli", "rte", "sst2", "stsb")
_METRICS = {"cola": "matthews", "stsb": "pearson"}
#: Name, layers kept, size and latency against fp32, and points of drop, about.
Config = tuple[str, list[str], float, float, float]
_PARTS = ("self.query", "self.key", "self.value", "output.dense")


def sample_result(
    tasks: tuple[str, ...] = TASKS, *, blocks: int = 6, labelled: bool = True, budgets: dict[str, float] | None = None
) -> CalibrationResult:
    """A whole calibration: an adapter of 8 experts, and routes too, which no real one has besides."""
    layers, allowed = _layers(blocks), dict.fromkeys(tasks, 0.5) | (budgets or {})
    trials = [_trial(index, config, allowed, labelled) for index, config in enumerate(_configs(layers))]
    divergence = {task: [_divergence(n, t, layers) for n in range(len(layers))] for t, task in enumerate(tasks)}
    return CalibrationResult(
        mode="conditioned",
        method="ept",
        model_type="bert",
        fingerprints={name: (name[0] * 64) for name in ("base", "adapter", "data")},
        settings=Settings(
            goal="size",
            max_drop=allowed,
            metrics={task: _metric(task) for task in tasks},
            rows={task: 277 + 40 * index for index, task in enumerate(tasks)},
            labelled=dict.fromkeys(tasks, labelled),
            data=[f"{task}.validation.jsonl" for task in tasks],
            machine="AMD EPYC 7763, 2 processors",
            threads=2,
            timed="8 rows of 32 tokens",
        ),
        trials=trials,
        chosen=min((trial for trial in trials if trial.within(allowed)), key=lambda trial: trial.bytes),
        sensitivity=Sensitivity("int8", [Layer(name, (f"/{name}/MatMul",), (), 589824) for name in layers], divergence),
        experts=_experts(tasks, blocks),
        routes=_routes(tasks),
    )


def _layers(blocks: int) -> list[str]:
    names = ["embeddings.word_embeddings"]
    for block in range(blocks):
        stem = f"encoder.layer.{block}"
        names += [f"{stem}.attention.{part}" for part in _PARTS]
        names += [f"{stem}.intermediate.dense", f"{stem}.output.dense"]
    return names


def _metric(task: str) -> str:
    return _METRICS.get(task, "accuracy")


def _wave(*numbers: int) -> float:
    """A number in 0 to 1 that looks drawn by chance."""
    seed = sum((n + 1) * p for n, p in zip(numbers, (12.9898, 78.233, 37.719), strict=False))
    return (math.sin(seed) * 43758.5) % 1


def _divergence(layer: int, task: int, layers: list[str]) -> float:
    if task == 0 and layers[layer].endswith("2.output.dense"):
        return 14.2
    return round(0.02 * 10 ** (1.6 * _wave(layer, task)), 5)


def _configs(layers: list[str]) -> list[Config]:
    fixed: list[Config] = [
        ("fp32", [], 1.0, 1.0, 0.0),
        ("fp16", [], 0.503, 1.04, 0.02),
        ("int8", [], 0.268, 0.51, 0.9),
        ("int8-static", [], 0.271, 0.47, 2.1),
        ("int8-blocks", [], 0.279, 0.62, 0.4),
        ("int4", [], 0.181, 0.66, 9.5),
    ]
    counts = range(2, 17, 2)
    return fixed + [
        (f"int8, {n} kept", layers[:n], 0.268 + 0.0015 * n, 0.51 + 0.004 * n, 0.9 - 0.05 * n) for n in counts
    ]


def _trial(index: int, config: Config, allowed: dict[str, float], labelled: bool) -> Trial:
    name, kept, size, time, lost = config
    parts = [0.2 + 0.8 * _wave(index, t) for t in range(len(allowed))]
    gained = 0.1 if index > 1 else 0.0
    drops = tuple(_drop(task, lost * parts[t] - gained, t, labelled) for t, task in enumerate(allowed))
    return Trial(name, tuple(kept), round(92.7e6 * size), size, 21.4 * time, time, drops)


def _drop(task: str, points: float, index: int, labelled: bool) -> Drop:
    reference, width = (0.55 + 0.05 * index if labelled else 1.0), 0.3 + 0.4 * _wave(index, 9) if points else 0.0
    return Drop(
        task=task,
        metric=_metric(task),
        labelled=labelled,
        rows=277 + 40 * index,
        reference=reference,
        found=reference - points / 100,
        points=points,
        low=points - width,
        high=points + width * 1.2,
    )


def _experts(tasks: tuple[str, ...], blocks: int) -> ExpertStudy:
    modules = [f"bert.encoder.layer.{n}.attention.self.{part}" for n in range(blocks) for part in ("query", "value")]
    chosen = {module: {task: _pair(m, t) for t, task in enumerate(tasks)} for m, module in enumerate(modules)}
    unused = {m: tuple(e for e in range(8) if all(e not in dict(p) for p in of.values())) for m, of in chosen.items()}
    return ExpertStudy(tasks, (2, 2, 4, 4, 6, 6, 8, 8), chosen, {m: ids for m, ids in unused.items() if ids})


def _pair(module: int, task: int) -> tuple[Choice, ...]:
    first = int(_wave(module, task) * 7)
    weight = round(0.5 + 0.2 * _wave(module, task, 2), 4)
    return (first, weight), ((first + 1 + task % 3) % 7, round(1 - weight, 4))


def _routes(tasks: tuple[str, ...]) -> RouteStudy:
    found = {}
    for t, task in enumerate(tasks):
        raw = [_wave(t, g) ** 3 for g in range(4)]
        share = [value / sum(raw) for value in raw]
        moved = tuple(round(3.5 * (1 - s) * (0.5 + _wave(g, t)), 4) for g, s in enumerate(share))
        weights = [[round(0.3 + 0.5 * _wave(g, e), 4) for e in range(3)] for g in range(4)]
        best = moved.index(min(moved))
        call = CallRoutes(
            Route(best, tuple(weights[best])), np.array(share), np.array(weights), np.full((4, 3), 0.02), moved
        )
        error: dict[str, Any] = {"rows": 138, "divergence": moved[best]}
        metric = Drop(task, _metric(task), True, 138, 0.9123, 0.9087, 0.36, 0.36, 0.36)
        found[task] = TaskRoutes(277, 138, (call,), False, error, metric)
    return RouteStudy("bert.encoder.layer.0.attention.self.query", 4, 3, found)
