"""What the bundle should compute: the reference in float64, and how far the export's own type is from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from eptx.bundle import Manifest
from eptx.exporter.validation.quantized.weights import QuantizedWeights
from eptx.exporter.validation.reference.differences import arrays_of, less
from eptx.exporter.validation.reference.files import ReferenceFiles
from eptx.exporter.validation.reference.reference_runner import ReferenceRunner
from eptx.exporter.validation.reference.rounding import adapter_dtype
from eptx.exporter.validation.reference.router_ties import expert_tables, tied_rows, unclear_experts
from eptx.manifest.names import AUTO_TASK, TASK_ID
from eptx.progress import step
from eptx.runtime.validation.batch import Batch, task_ids
from eptx.runtime.validation.distance import Spreads, Subject, largest
from eptx.runtime.validation.expectation import Expectation, Floors, LiveRoute
from eptx.runtime.validation.expected import Whole
from eptx.runtime.validation.values import kept_values, sample, sampled_values

_REDRAWS = 4
#: How often the own type runs. In SmolLM2 one number of a row outweighs all others, and in a single run that number may
#: hardly differ by chance: the floor of one run was a tenth of another's.
_RUNS = 3


def run_reference(
    manifest: Manifest,
    reference: ReferenceFiles,
    batches: Sequence[Batch],
    redraw: Callable[[Batch], Batch],
    quantized: QuantizedWeights | None = None,
    columns: int | None = None,
) -> Expectation[np.ndarray]:
    """Runs the reference in both types, one model in memory at a time.

    Args:
        manifest: of the bundle.
        reference: the trained model.
        batches: what to run.
        redraw: makes another batch of the same shape, in place of one with a router tie.
        quantized: the bundle's weights, if they are quantized.
        columns: how many numbers of each place a proof samples; None: none is recorded.
    """
    result: Expectation[np.ndarray] = Expectation(sampled=None if columns is None else Floors(columns))
    with step("running the reference in float64"):
        _run_exact(ReferenceRunner(manifest, reference, torch.float64, quantized), result, batches, redraw)
    with step(f"running the reference in the export's own type ({manifest.precision})"):
        _run_own(ReferenceRunner(manifest, reference, torch.float32, quantized), result)
    if quantized is not None:
        result.wrong, result.folded = quantized.wrong, quantized.effects
    reference.release_models()
    return result


def _run_exact(
    runner: ReferenceRunner, result: Expectation[np.ndarray], batches: Sequence[Batch], redraw: Callable[[Batch], Batch]
) -> None:
    dtype = adapter_dtype(runner.manifest)
    result.experts = expert_tables(runner.model)
    runner.decider.note_flips(result.experts)
    result.class_name = type(runner.model.model).__name__
    for batch in batches:
        expected = runner.run(batch)
        for _ in range(_REDRAWS if batch.seed is not None else 0):
            if not _tied(expected, None, dtype).any():
                break
            batch = redraw(batch)
            expected = runner.run(batch)
            result.redrawn += 1
        result.batches.append(expected)
        if batch.measures_effect and not runner.folded:
            off = runner.run(expected.batch, off=True)
            if runner.model.brings_heads:
                off.outputs.pop("logits", None)  # without a task there is no head; that is no effect of the modules
            difference = less(expected, off)
            for floors in _floors(result, batch):
                _add(floors.effect, floors, expected, difference)
    modules = runner.model.module_names
    idle = runner.idle([name for name in modules if name not in runner.places], result.batches[0].batch)
    result.modules = tuple(name for name in modules if name not in idle)
    if runner.manifest.route is not None:
        result.live = _frozen_from_live(runner, [e for e in result.batches if e.batch.seed is None])


def _run_own(runner: ReferenceRunner, result: Expectation[np.ndarray]) -> None:
    """Runs every batch, and those that measure effects several times, each time with other rounding."""
    noises = [[Spreads() for _ in range(_RUNS)] for _ in range(2)]  # of what is compared, and of a proof's samples
    dtype = adapter_dtype(runner.manifest)
    runner.decider.note_flips(result.experts)
    for task, index in runner.reference.ids.items():
        flipped = [m for m, table in result.experts.items() if index < len(table.flipped) and table.flipped[index]]
        result.unclear |= {task: flipped[0]} if flipped else {}
    for expected in result.batches:
        own = runner.run(expected.batch)
        ids = task_ids(expected.batch, runner.reference.ids)
        tied = _tied(expected, own, dtype)
        for call, decisions in enumerate(expected.decisions):
            tied |= unclear_experts(result.experts, expected.task if call else ids, decisions.used)
            if expected.batch.prompt is not None:
                tied |= unclear_experts(result.experts, expected.task, {})
        expected.compared = ~tied
        runs = _RUNS if expected.batch.measures_effect else 1
        for run in range(runs):
            difference = less(own, expected)
            for floors, noise in zip(_floors(result, expected.batch), noises, strict=False):
                _add(noise[run], floors, expected, difference)
            if run + 1 < runs:
                own = runner.run(expected.batch)
        for floors in _floors(result, expected.batch):
            _add(floors.scale, floors, expected, expected)
    result.floors.noise = largest(noises[0])
    if result.sampled is not None:
        result.sampled.noise = largest(noises[1])


def _floors(result: Expectation[np.ndarray], batch: Batch) -> list[Floors]:
    """Those that a batch is measured for: a user's data is in no proof."""
    if result.sampled is None or batch.seed is None:
        return [result.floors]
    return [result.floors, result.sampled]


def _tied(expected: Whole, own: Whole | None, dtype: str) -> np.ndarray:
    """bool [rows]: rows behind a router tie in one of their calls."""
    tied = np.zeros(expected.batch.rows, dtype=bool)
    for call, decisions in enumerate(expected.decisions):
        tied |= tied_rows(decisions, own.decisions[call] if own is not None else None, len(tied), dtype)
    return tied


def _add(spreads: Spreads, floors: Floors, expected: Whole, values: Whole) -> None:
    """Adds values to the spreads, or the numbers where a proof has numbers of what is expected."""
    exact = {(kind, name): array for kind, name, array in arrays_of(expected)}
    batch, columns = expected.batch, floors.columns
    for kind, name, array in arrays_of(values):
        like = None if columns is None else sample(kind, exact[kind, name], batch, columns)
        for task in dict.fromkeys(batch.tasks):
            rows = expected.rows_of(task)
            numbers = kept_values(array, rows, batch) if like is None else sampled_values(array, like, rows, batch)
            spreads[Subject(task, kind, name)].add(numbers)


def _frozen_from_live(runner: ReferenceRunner, batches: Sequence[Whole]) -> LiveRoute | None:
    """Compares the frozen route with the released, live one, on the user's data."""
    router = runner.model.router
    if not batches or (router is None and not runner.model.method.routes_by_module):
        return None
    frozen = (runner.manifest.route or {})["tasks"]
    first = {task: int(routes[0]["group"]) for task, routes in frozen.items()}
    rows = agree = 0
    error, scale = Spreads(), Spreads()
    for expected in batches:
        live = runner.run(expected.batch, live=True)
        rows += expected.batch.rows
        if router is not None:
            chosen = np.broadcast_to(live.groups[0][router], expected.batch.rows).tolist()
            agree += sum(first.get(task) == group for task, group in zip(expected.batch.tasks, chosen, strict=True))
        _add(error, Floors(), expected, less(live, expected))
        _add(scale, Floors(), expected, live)
    outputs = {
        f"{subject.task}/{subject.name}": error[subject].rms / (scale[subject].rms or 1.0)
        for subject in sorted(scale)
        if subject.kind == "output"
    }
    return LiveRoute(rows, None if router is None else agree / rows, outputs)


def row_tasks(manifest: Manifest, reference: ReferenceFiles) -> list[str]:
    """The tasks of rows: the adapter's, and ``auto`` where the bundle infers."""
    has_input = any(spec.name == TASK_ID for spec in manifest.inputs)
    names = list(reference.ids) if has_input else list(reference.ids)[:1]
    return names + ([AUTO_TASK] if manifest.task_inference else [])
