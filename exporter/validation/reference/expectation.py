"""What the bundle should compute: the reference in float64, and how far the export's own type is from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from eptx.bundle import Manifest
from eptx.exporter.validation.distance import Spreads, Subject, largest
from eptx.exporter.validation.inputs.batch import Batch, task_ids
from eptx.exporter.validation.quantized.weights import QuantizedWeights
from eptx.exporter.validation.reference.expected import Expected, arrays_of, kept_values
from eptx.exporter.validation.reference.files import ReferenceFiles
from eptx.exporter.validation.reference.reference_runner import ReferenceRunner
from eptx.exporter.validation.reference.rounding import adapter_dtype
from eptx.exporter.validation.reference.router_ties import ExpertTable, expert_tables, tied_rows, unclear_experts
from eptx.manifest.names import AUTO_TASK, TASK_ID
from eptx.progress import step

_REDRAWS = 4
#: How often the own type runs. In SmolLM2 one number of a row outweighs all others, and in a single run that number may
#: hardly differ by chance: the floor of one run was a tenth of another's.
_RUNS = 3


@dataclass(frozen=True)
class LiveRoute:
    """How far frozen routes are from the live ones, on the user's data.

    Attributes:
        rows: how many.
        group_agreement: the share of them for which the live route chooses the frozen group; None where nothing is
            chosen, because routers weigh all experts.
        relative_rms: ``task/output`` -> root mean square of the difference over that of the live values.
    """

    rows: int
    group_agreement: float | None
    relative_rms: Mapping[str, float]


@dataclass
class Expectation:
    """What the bundle should compute on all batches, and how much of a difference is rounding.

    Attributes:
        batches: the expected results.
        noise: own type less float64, the largest of a few runs. scale: the float64 values.
        effect: adapter on less adapter off.
        experts: EPT: what every module's router chooses.
        unclear: EPT: task -> a module where rounding decides which experts the task uses.
        redrawn: how many batches were drawn again because of a router tie.
        live: how far frozen routes are from the live ones; None without data, or without such routes.
        wrong: linear layer -> what is wrong with its quantized weight.
        folded: module of a static quantized bundle -> the effect of its task's update, in noise floors.
        modules: the adapted modules, as the adapter's files name them; without those that the bundle says nothing of
            and that change no output.
        class_name: the transformers class that was trained.
    """

    batches: list[Expected] = field(default_factory=list)
    noise: Spreads = field(default_factory=Spreads)
    scale: Spreads = field(default_factory=Spreads)
    effect: Spreads = field(default_factory=Spreads)
    experts: dict[str, ExpertTable] = field(default_factory=dict)
    unclear: dict[str, str] = field(default_factory=dict)
    redrawn: int = 0
    live: LiveRoute | None = None
    wrong: dict[str, str] = field(default_factory=dict)
    folded: dict[str, float] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    class_name: str = ""


def run_reference(
    manifest: Manifest,
    reference: ReferenceFiles,
    batches: Sequence[Batch],
    redraw: Callable[[Batch], Batch],
    quantized: QuantizedWeights | None = None,
) -> Expectation:
    """Runs the reference in both types, one model in memory at a time.

    Args:
        manifest: of the bundle.
        reference: the trained model.
        batches: what to run.
        redraw: makes another batch of the same shape, in place of one with a router tie.
        quantized: the bundle's weights, if they are quantized.
    """
    result = Expectation()
    with step("running the reference in float64"):
        _run_exact(ReferenceRunner(manifest, reference, torch.float64, quantized), result, batches, redraw)
    with step(f"running the reference in the export's own type ({manifest.precision})"):
        _run_own(ReferenceRunner(manifest, reference, torch.float32, quantized), result)
    if quantized is not None:
        result.wrong, result.folded = quantized.wrong, quantized.effects
    return result


def _run_exact(
    runner: ReferenceRunner, result: Expectation, batches: Sequence[Batch], redraw: Callable[[Batch], Batch]
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
            _add(result.effect, expected, expected.less(off))
    modules = runner.model.module_names
    idle = runner.idle([name for name in modules if name not in runner.places], result.batches[0].batch)
    result.modules = tuple(name for name in modules if name not in idle)
    if runner.manifest.route is not None:
        result.live = _frozen_from_live(runner, [e for e in result.batches if e.batch.seed is None])


def _run_own(runner: ReferenceRunner, result: Expectation) -> None:
    """Runs every batch, and those that measure effects several times, each time with other rounding."""
    noises = [Spreads() for _ in range(_RUNS)]
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
        for noise in noises if expected.batch.measures_effect else noises[:1]:
            _add(noise, expected, own.less(expected))
            if noise is not noises[-1] and expected.batch.measures_effect:
                own = runner.run(expected.batch)
        _add(result.scale, expected, expected)
    result.noise = largest(noises)


def _tied(expected: Expected, own: Expected | None, dtype: str) -> np.ndarray:
    """bool [rows]: rows behind a router tie in one of their calls."""
    tied = np.zeros(expected.batch.rows, dtype=bool)
    for call, decisions in enumerate(expected.decisions):
        tied |= tied_rows(decisions, own.decisions[call] if own is not None else None, len(tied), dtype)
    return tied


def _add(spreads: Spreads, expected: Expected, values: Expected) -> None:
    for task in dict.fromkeys(expected.batch.tasks):
        rows = expected.rows_of(task)
        for kind, name, array in arrays_of(values):
            spreads[Subject(task, kind, name)].add(kept_values(array, rows, expected.batch))


def _frozen_from_live(runner: ReferenceRunner, batches: Sequence[Expected]) -> LiveRoute | None:
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
        _add(error, expected, live.less(expected))
        _add(scale, expected, live)
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
