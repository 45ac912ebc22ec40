"""Freezing TuckA's route: which route data takes, and how far the frozen one is from the live one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eptx._progress import step
from eptx.calibration.data import Encoder, rows_by_task
from eptx.errors import NotSupportedError, UsageError
from eptx.exporter.base._model import read_config
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from eptx.exporter.options import ExportOptions
from eptx.exporter.plan import static_task
from eptx.exporter.read import read_adapter
from eptx.exporter.reference import ReferenceModel, build_reference
from eptx.exporter.route import Route
from eptx.exporter.write import max_length

#: Digits of a frozen weight: below what float32 holds, above what float64 summation varies by.
_DIGITS = 9


@dataclass(frozen=True)
class Live:
    """What one row did by its own route.

    Attributes:
        task: id of the task whose head reads it.
        inputs: of the model, [1, length].
        route: the router's.
        output: logits, or the first output, [1, ...] float64.
    """

    task: int
    inputs: dict[str, np.ndarray]
    route: Route
    output: np.ndarray


def measure_route(base: Path | None, adapters: Sequence[Path], options: ExportOptions, file: Path) -> ExportOptions:
    """Fills in the frozen routes of an export from data, and reports how far they are from the live ones.

    Every row is run by itself, unpadded, through the PyTorch reference. A task's route is the group that most of its
    rows take, with the mean of the weights that those rows give it. Routes that were given are kept, and judged.

    Args:
        base: the transformers folder.
        adapters: the adapter folder.
        options: of the export.
        file: jsonl with ``text`` (and ``text_pair``) or ``input_ids``, and ``task`` where rows are of one task.

    Returns:
        The options with ``routes`` and ``route_report``.

    Raises:
        UsageError: the adapter has no route to freeze, or there is no base folder to run.
        DataError: the file cannot be used.
        NotSupportedError: the base does not read text, or has no tokenizer for it.
    """
    options.check()
    adapter = read_adapter(adapters, top_k=options.top_k, tasks=options.tasks)
    if not isinstance(adapter, TuckaAdapter) or options.mode == "dynamic":
        raise UsageError("--calibration-data measures TuckA's route, for --mode static or conditioned")
    if base is None:
        raise UsageError("--calibration-data runs the model in PyTorch: give its transformers folder as BASE")
    tasks = adapter.tasks if options.mode == "conditioned" else (static_task(adapter, options),)
    by_task = rows_by_task(file, adapter.tasks)
    config = read_config(base)
    vocabulary = config.get("vocab_size")
    if not isinstance(vocabulary, int):
        raise NotSupportedError(
            f"--calibration-data are texts, which {config['model_type']} does not read: give --route"
        )
    with step("measuring the route"):
        model = build_reference(base, adapter)
        encoder = Encoder(base, vocabulary, max_length(config))
        ids = {task: adapter.tasks.index(task) for task in tasks}
        live = {task: [_live(model, ids[task], inputs) for inputs in encoder(by_task[task])] for task in tasks}
        everything = [row for rows in live.values() for row in rows]
        if not everything:
            raise UsageError(f"{file.name} has no rows of {', '.join(tasks)}")
        routes = dict(options.routes)
        for task in tasks:
            if task not in routes and None not in routes:
                routes[task] = typical_route([row.route for row in live[task] or everything])
        errors = {task: _error(model, live[task] or everything, routes.get(task, routes.get(None))) for task in tasks}
    return replace(options, routes=routes, route_report={"frozen_error": errors})


def typical_route(routes: Sequence[Route]) -> Route:
    """The most frequent group (the lowest of equals) with the mean weights of the routes that take it."""
    counts = Counter(route.group for route in routes)
    group = min(counts, key=lambda g: (-counts[g], g))
    weights = np.mean([route.weights for route in routes if route.group == group], axis=0)
    return Route(group, tuple(round(float(weight), _DIGITS) for weight in weights))


def _live(model: ReferenceModel, task: int, inputs: dict[str, np.ndarray]) -> Live:
    result = model.run(inputs, [task])
    assert result.group is not None and result.weights is not None
    route = Route(int(result.group[0]), tuple(float(weight) for weight in result.weights[0]))
    return Live(task, inputs, route, _output(result.outputs))


def _output(outputs: dict[str, np.ndarray]) -> np.ndarray:
    return outputs["logits"] if "logits" in outputs else next(iter(outputs.values()))


def _error(model: ReferenceModel, rows: Sequence[Live], route: Route | None) -> dict[str, Any]:
    """How far the outputs by the frozen route are from those by each row's own."""
    assert route is not None
    differences, same_group, same_best = [], 0, 0
    for row in rows:
        frozen = _output(model.run(row.inputs, [row.task], route=route).outputs)
        differences.append(np.abs(frozen - row.output))
        same_group += row.route.group == route.group
        same_best += bool((frozen.argmax(-1) == row.output.argmax(-1)).all())
    return {
        "rows": len(rows),
        "group_agreement": same_group / len(rows),
        "argmax_agreement": same_best / len(rows),
        "max_abs": round(max(float(d.max()) for d in differences), _DIGITS),
        "mean_abs": round(float(np.mean([d.mean() for d in differences])), _DIGITS),
        "largest_output": round(max(float(np.abs(row.output).max()) for row in rows), _DIGITS),
    }
