"""What the bundle should compute: the reference in float64, and how far the export's own type is from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from eptx.bundle import Manifest
from eptx.exporter.validation.distance import Spreads, Subject, largest
from eptx.exporter.validation.inputs.batch import Batch, task_ids
from eptx.exporter.validation.quantized.weights import Quantized
from eptx.exporter.validation.reference.expected import Expected, arrays_of, kept_values
from eptx.exporter.validation.reference.files import Truth
from eptx.exporter.validation.reference.reference_runner import Asked
from eptx.exporter.validation.reference.rounding import adapter_dtype
from eptx.exporter.validation.reference.router_ties import ExpertTable, expert_tables, tied_rows, unclear_experts
from eptx.manifest.names import AUTO_TASK, TASK_ID
from eptx.progress import step

_REDRAWS = 4
#: How often the own type is run. SmolLM2 makes one number of a row outweigh all others, and by chance that one may
#: hardly differ in a run: a floor of one run was a tenth of another's there.
_RUNS = 3


@dataclass
class Expectation:
    """All batches, and what is within rounding on them.

    Attributes:
        batches: what each should give.
        noise: own type less float64, the largest of a few runs. scale: the float64 values.
        effect: adapter on less adapter off.
        experts: EPT: what every module's router chooses.
        unclear: EPT: task -> a module whose experts rounding decides for it.
        redrawn: how many batches were drawn again for a near tie.
        live: TuckA with a frozen route, on the user's data: how far the frozen outputs are from the live ones.
        wrong: linear layer -> what is wrong with its quantized weight.
        folded: module of a static quantized bundle -> how clearly its task's update would be missed.
        modules: the adapted modules, as the adapter's files name them.
        class_name: the transformers class that was trained.
    """

    batches: list[Expected] = field(default_factory=list)
    noise: Spreads = field(default_factory=Spreads)
    scale: Spreads = field(default_factory=Spreads)
    effect: Spreads = field(default_factory=Spreads)
    experts: dict[str, ExpertTable] = field(default_factory=dict)
    unclear: dict[str, str] = field(default_factory=dict)
    redrawn: int = 0
    live: dict[str, Any] | None = None
    wrong: dict[str, str] = field(default_factory=dict)
    folded: dict[str, float] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    class_name: str = ""


def expect(
    manifest: Manifest,
    truth: Truth,
    batches: Sequence[Batch],
    redraw: Callable[[Batch], Batch],
    quantized: Quantized | None = None,
) -> Expectation:
    """Runs the reference twice, one model in memory at a time.

    Args:
        manifest: of the bundle.
        truth: the trained model.
        batches: what to run.
        redraw: gives another batch of the same shape, for one with a near tie.
        quantized: the bundle's weights, where they are quantized.
    """
    result = Expectation()
    with step("running the reference in float64"):
        _run_exact(Asked(manifest, truth, torch.float64, quantized), result, batches, redraw)
    with step(f"running the reference in the export's own type ({manifest.precision})"):
        _run_own(Asked(manifest, truth, torch.float32, quantized), result)
    if quantized is not None:
        result.wrong, result.folded = quantized.wrong, quantized.effects
    return result


def _run_exact(
    reference: Asked, result: Expectation, batches: Sequence[Batch], redraw: Callable[[Batch], Batch]
) -> None:
    dtype = adapter_dtype(reference.manifest)
    result.experts = expert_tables(reference.model)
    reference.decider.note_flips(result.experts)
    result.modules = tuple(reference.model.module_names)
    result.class_name = type(reference.model.model).__name__
    for batch in batches:
        expected = reference.run(batch)
        for _ in range(_REDRAWS if batch.seed is not None else 0):
            if not _tied(expected, None, dtype).any():
                break
            batch = redraw(batch)
            expected = reference.run(batch)
            result.redrawn += 1
        result.batches.append(expected)
        if batch.measures_effect and not reference.folded:
            off = reference.run(expected.batch, off=True)
            if reference.model.brings_heads:
                off.outputs.pop("logits", None)  # without the task they have no head: no effect of the modules
            _add(result.effect, expected, expected.less(off))
    if reference.manifest.route is not None:
        result.live = _frozen_from_live(reference, [e for e in result.batches if e.batch.seed is None])


def _run_own(reference: Asked, result: Expectation) -> None:
    """Runs everything, and the batches of all tasks some times more, and rounds otherwise in each."""
    noises = [Spreads() for _ in range(_RUNS)]
    dtype = adapter_dtype(reference.manifest)
    reference.decider.note_flips(result.experts)
    for task, index in reference.truth.ids.items():
        flipped = [m for m, table in result.experts.items() if index < len(table.flipped) and table.flipped[index]]
        result.unclear |= {task: flipped[0]} if flipped else {}
    for expected in result.batches:
        own = reference.run(expected.batch)
        ids = task_ids(expected.batch, reference.truth.ids)
        tied = _tied(expected, own, dtype)
        for call, decisions in enumerate(expected.decisions):
            tied |= unclear_experts(result.experts, expected.task if call else ids, decisions.used)
            if expected.batch.prompt is not None:
                tied |= unclear_experts(result.experts, expected.task, {})
        expected.judged = ~tied
        for noise in noises if expected.batch.measures_effect else noises[:1]:
            _add(noise, expected, own.less(expected))
            if noise is not noises[-1] and expected.batch.measures_effect:
                own = reference.run(expected.batch)
        _add(result.scale, expected, expected)
    result.noise = largest(noises)


def _tied(expected: Expected, own: Expected | None, dtype: str) -> np.ndarray:
    """bool [rows]: rows behind a near tie in one of their calls."""
    tied = np.zeros(expected.batch.rows, dtype=bool)
    for call, decisions in enumerate(expected.decisions):
        tied |= tied_rows(decisions, own.decisions[call] if own is not None else None, len(tied), dtype)
    return tied


def _add(spreads: Spreads, expected: Expected, values: Expected) -> None:
    for task in dict.fromkeys(expected.batch.tasks):
        rows = expected.rows_of(task)
        for kind, name, array in arrays_of(values):
            spreads[Subject(task, kind, name)].add(kept_values(array, rows, expected.batch))


def _frozen_from_live(reference: Asked, batches: Sequence[Expected]) -> dict[str, Any] | None:
    """How far the frozen route's outputs are from the released, live one's, on the user's data."""
    router = reference.model.router
    if not batches or router is None:
        return None
    frozen = (reference.manifest.route or {})["tasks"]
    first = {task: int(routes[0]["group"]) for task, routes in frozen.items()}
    rows = agree = 0
    error, scale = Spreads(), Spreads()
    for expected in batches:
        live = reference.run(expected.batch, live=True)
        chosen = np.broadcast_to(live.groups[0][router], expected.batch.rows)
        for task, group in zip(expected.batch.tasks, chosen.tolist(), strict=True):
            rows, agree = rows + 1, agree + (first.get(task) == group)
        _add(error, expected, live.less(expected))
        _add(scale, expected, live)
    outputs = {
        f"{subject.task}/{subject.name}": error[subject].rms / (scale[subject].rms or 1.0)
        for subject in sorted(scale)
        if subject.kind == "output"
    }
    return {"rows": rows, "group_agreement": agree / rows, "relative_rms": outputs}


def row_tasks(manifest: Manifest, truth: Truth) -> list[str]:
    """The tasks that rows are given: the adapter's, and ``auto`` where the bundle infers."""
    has_input = any(spec.name == TASK_ID for spec in manifest.inputs)
    names = list(truth.ids) if has_input else list(truth.ids)[:1]
    return names + ([AUTO_TASK] if manifest.task_inference else [])
