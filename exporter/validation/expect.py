"""What the bundle should compute: the reference in float64, and how far the export's own type is from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from eptx._manifest import TASK_ID_USED
from eptx._progress import step
from eptx.bundle import Manifest
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from eptx.exporter.reference import ReferenceModel, ReferenceOutput, build_reference
from eptx.exporter.route import Route
from eptx.exporter.validation.batches import AUTO, Batch, task_ids
from eptx.exporter.validation.choices import Decider, Decisions, ExpertTable, expert_tables, tied_rows, unclear_experts
from eptx.exporter.validation.distance import Spreads, Subject
from eptx.exporter.validation.rounding import round_weights, router_dtype
from eptx.exporter.validation.sources import Truth

_REDRAWS = 4


@dataclass
class Expected:
    """What one batch should give.

    Attributes:
        batch: its inputs.
        outputs: output -> float64 array [rows, ..].
        modules: module -> float64 array [rows, positions, out], without the bias where the graph's value lacks it.
        judged: bool [rows]; False behind a near tie.
        group: TuckA: the group [1 or rows], else None.
        task: each row's task id, inferred where it was to be.
    """

    batch: Batch
    outputs: dict[str, np.ndarray]
    modules: dict[str, np.ndarray]
    judged: np.ndarray
    group: np.ndarray | None
    task: np.ndarray
    decisions: Decisions = field(default_factory=Decisions, repr=False)

    def rows_of(self, task: str) -> np.ndarray:
        """bool [rows]: the judged rows of a task (``auto``: those to infer)."""
        return np.asarray(np.array([name == task for name in self.batch.tasks]) & self.judged)


@dataclass
class Expectation:
    """All batches, and what is within rounding on them.

    Attributes:
        batches: what each should give.
        noise: own type less float64. scale: the float64 values. effect: adapter on less adapter off.
        experts: EPT: what every module's router chooses.
        unclear: EPT: task -> a module whose experts rounding decides for it.
        redrawn: how many batches were drawn again for a near tie.
        live: TuckA with a frozen route, on the user's data: how far the frozen outputs are from the live ones.
    """

    batches: list[Expected] = field(default_factory=list)
    noise: Spreads = field(default_factory=Spreads)
    scale: Spreads = field(default_factory=Spreads)
    effect: Spreads = field(default_factory=Spreads)
    experts: dict[str, ExpertTable] = field(default_factory=dict)
    unclear: dict[str, str] = field(default_factory=dict)
    redrawn: int = 0
    live: dict[str, Any] | None = None


def expect(manifest: Manifest, truth: Truth, batches: Sequence[Batch], redraw: Callable[[Batch], Batch]) -> Expectation:
    """Runs the reference twice, one model in memory at a time.

    Args:
        manifest: of the bundle.
        truth: the trained model.
        batches: what to run.
        redraw: gives another batch of the same shape, for one with a near tie.
    """
    result = Expectation(experts=expert_tables(truth.adapter, router_dtype(manifest)))
    with step("running the reference in float64"):
        _run_exact(_Reference(manifest, truth, torch.float64), result, batches, redraw)
    with step(f"running the reference in the export's own type ({manifest.precision})"):
        _run_own(_Reference(manifest, truth, torch.float32), result)
    return result


class _Reference:
    """The reference model, asked as the bundle is asked."""

    def __init__(self, manifest: Manifest, truth: Truth, dtype: torch.dtype) -> None:
        self.manifest, self.truth = manifest, truth
        self._model: ReferenceModel = build_reference(
            truth.base, truth.adapter, headless=_headless(manifest, truth), dtype=dtype
        )
        if dtype != torch.float64:
            round_weights(self._model, manifest)
        self.decider = Decider(self._model)
        self._biases = {
            name: None if place.bias else self._model.bias(name) for name, place in manifest.modules.items()
        }

    def run(self, batch: Batch, *, live: bool = False, off: bool = False) -> Expected:
        """One batch: with the frozen route or the live one, or with the adapter off."""
        ids = task_ids(batch, self.truth.ids)
        if off:
            ids = np.full_like(ids, len(self.truth.adapter.tasks))
        route = None if live else self._routes(batch)
        output = self._model.run(batch.arrays, ids, route=route, routing=self._routing())
        assert output.task is not None
        return Expected(
            batch,
            self._outputs(output),
            {name: self._module(name, array, batch) for name, array in output.modules.items()},
            np.ones(batch.rows, dtype=bool),
            output.group,
            output.task,
            self.decider.decisions(output, ids),
        )

    def _routing(self) -> Literal["batch", "row"]:
        return "row" if self.manifest.routing == "row" else "batch"

    def _routes(self, batch: Batch) -> list[Route] | None:
        """The frozen route of each row."""
        frozen = (self.manifest.route or {}).get("tasks")
        if frozen is None or not isinstance(self.truth.adapter, TuckaAdapter):
            return None
        routes = {task: Route(int(r["group"]), tuple(map(float, r["weights"]))) for task, r in frozen.items()}
        any_route = next(iter(routes.values()))
        return [routes.get(task, any_route) for task in batch.tasks]

    def _outputs(self, output: ReferenceOutput) -> dict[str, np.ndarray]:
        wanted = [spec.name for spec in self.manifest.outputs if spec.name != TASK_ID_USED]
        return {name: np.asarray(output.outputs[name], np.float64) for name in wanted if name in output.outputs}

    def _module(self, name: str, array: np.ndarray, batch: Batch) -> np.ndarray:
        rows = np.asarray(array, np.float64).reshape(batch.rows, -1, array.shape[-1])
        bias = self._biases[name]
        return rows if bias is None else rows - bias.astype(np.float64)


def _headless(manifest: Manifest, truth: Truth) -> bool:
    """Whether the graph ends before the model's own head; logits may also be those of task heads."""
    return truth.adapter.heads is not None or all(spec.name != "logits" for spec in manifest.outputs)


def _run_exact(
    reference: _Reference, result: Expectation, batches: Sequence[Batch], redraw: Callable[[Batch], Batch]
) -> None:
    dtype = router_dtype(reference.manifest)
    reference.decider.note_flips(result.experts)
    for batch in batches:
        expected = reference.run(batch)
        for _ in range(_REDRAWS if batch.seed is not None else 0):
            if not tied_rows(expected.decisions, None, batch.rows, dtype).any():
                break
            batch = redraw(batch)
            expected = reference.run(batch)
            result.redrawn += 1
        result.batches.append(expected)
        if batch.measures_effect:
            off = _less(reference.run(batch, off=True), expected)
            if reference.truth.adapter.heads is not None:
                off.outputs.pop("logits", None)  # without the task they have no head: no effect of the modules
            _add(result.effect, expected, off)
    if reference.manifest.route is not None:
        result.live = _frozen_from_live(reference, [e for e in result.batches if e.batch.seed is None])


def _run_own(reference: _Reference, result: Expectation) -> None:
    dtype = router_dtype(reference.manifest)
    reference.decider.note_flips(result.experts)
    for task, index in reference.truth.ids.items():
        flipped = [m for m, table in result.experts.items() if index < len(table.flipped) and table.flipped[index]]
        result.unclear |= {task: flipped[0]} if flipped else {}
    for expected in result.batches:
        own = reference.run(expected.batch)
        ids = task_ids(expected.batch, reference.truth.ids)
        tied = tied_rows(expected.decisions, own.decisions, expected.batch.rows, dtype)
        tied |= unclear_experts(result.experts, ids, expected.decisions.used)
        expected.judged = ~tied
        _add(result.noise, expected, _less(own, expected))
        _add(result.scale, expected, expected)


def _less(first: Expected, second: Expected) -> Expected:
    """The difference of two results of one batch."""
    return replace(
        first,
        outputs={name: first.outputs[name] - array for name, array in second.outputs.items()},
        modules={name: first.modules[name] - array for name, array in second.modules.items()},
    )


def _add(spreads: Spreads, expected: Expected, values: Expected) -> None:
    for task in dict.fromkeys(expected.batch.tasks):
        rows = expected.rows_of(task)
        for kind, name, array in arrays_of(values):
            spreads[Subject(task, kind, name)].add(kept_values(array, rows, expected.batch))


def arrays_of(values: Expected) -> Iterator[tuple[Literal["module", "output"], str, np.ndarray]]:
    """Every module's and output's array."""
    for name, array in values.modules.items():
        yield "module", name, array
    for name, array in values.outputs.items():
        yield "output", name, array


def kept_values(array: np.ndarray, rows: np.ndarray, batch: Batch) -> np.ndarray:
    """The numbers [.., ] of some rows, without what stands at padding."""
    kept = batch.kept
    if kept is not None and array.ndim > 2 and array.shape[1] == kept.shape[1]:
        selected: np.ndarray = array[kept & rows[:, None]]
        return selected
    return np.asarray(array[rows])


def _frozen_from_live(reference: _Reference, batches: Sequence[Expected]) -> dict[str, Any] | None:
    """How far the frozen route's outputs are from the released, live one's, on the user's data."""
    if not batches:
        return None
    frozen = (reference.manifest.route or {})["tasks"]
    groups = {task: int(route["group"]) for task, route in frozen.items()}
    rows = agree = 0
    error, scale = Spreads(), Spreads()
    for expected in batches:
        live = reference.run(expected.batch, live=True)
        assert live.group is not None
        chosen = np.broadcast_to(live.group, expected.batch.rows)
        for task, group in zip(expected.batch.tasks, chosen.tolist(), strict=True):
            rows, agree = rows + 1, agree + (groups.get(task) == group)
        _add(error, expected, _less(live, expected))
        _add(scale, expected, live)
    outputs = {
        f"{subject.task}/{subject.name}": error[subject].rms / (scale[subject].rms or 1.0)
        for subject in sorted(scale)
        if subject.kind == "output"
    }
    return {"rows": rows, "group_agreement": agree / rows, "relative_rms": outputs}


def row_tasks(manifest: Manifest) -> list[str]:
    """The tasks that rows are given: the bundle's, and ``auto`` where it infers."""
    has_input = any(spec.name == "task_id" for spec in manifest.inputs)
    names = [task.name for task in manifest.tasks] if has_input else [manifest.tasks[0].name]
    return names + ([AUTO] if manifest.task_inference else [])
