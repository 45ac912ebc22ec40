"""The bundle on one provider, held against what it should compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import numpy as np

from eptx._manifest import MODEL_FILE, TASK_ID_USED
from eptx._progress import step
from eptx.bundle import Bundle, Manifest
from eptx.errors import BundleError, RequestError
from eptx.exporter.read import BASE_TASK
from eptx.exporter.validation.batches import AUTO, bundle_ids
from eptx.exporter.validation.choices import wrong_rows
from eptx.exporter.validation.distance import LIMIT, Spreads, Subject, ratio
from eptx.exporter.validation.expect import Expectation
from eptx.exporter.validation.expected import Expected, kept_values
from eptx.exporter.validation.metrics import Answers
from eptx.exporter.validation.models import Model, Observation, observed, sharpened, shipped
from eptx.exporter.validation.observe import Graph
from eptx.exporter.validation.report import Measured, ProviderReport, TaskReport
from eptx.exporter.validation.rounding import own_type

HEADS = "task_heads"


@dataclass
class _Seen:
    """What one provider's runs amount to.

    Attributes:
        error: bundle less float64: modules and, as shipped, outputs.
        watched: the same for the outputs of the observable copy.
        complaints: (task, module, output or file) -> what is wrong with it where that is not a distance: a router's
            choice, a shape, a model that does not run.
        ties: task -> the module whose router chose otherwise where the reference's choice is a near tie.
        rows: task -> (judged rows, rows set aside).
        answers: logits of both, for argmax agreement and metrics.
        rounded: of a quantised bundle, the errors of its outputs where activations are rounded to 8 bits, as shipped.
        rounded_answers: their logits.
    """

    error: Spreads = field(default_factory=Spreads)
    watched: Spreads = field(default_factory=Spreads)
    complaints: dict[tuple[str, str], str] = field(default_factory=dict)
    ties: dict[str, str] = field(default_factory=dict)
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    rounded: Spreads = field(default_factory=Spreads)
    rounded_answers: Answers = field(default_factory=Answers)


def judge(bundle: Bundle, graph: Graph, expectation: Expectation, provider: str) -> ProviderReport:
    """Runs the bundle as shipped and the observable copy of it, and compares both with the reference.

    Raises:
        BundleError: ONNX Runtime cannot load or run the model.
        NotSupportedError: the provider does not start on this machine.
    """
    seen = _Seen()
    with step(f"running the bundle as shipped ({provider})"):
        if not graph.rounds:
            _run_outputs(bundle, shipped(bundle, provider), expectation, seen)
        else:
            _run_outputs(bundle, sharpened(bundle, graph, provider), expectation, seen)
            _run_rounded(bundle, shipped(bundle, provider), expectation, seen)
    with step(f"running the bundle observed ({provider})"):
        _run_observed(bundle, graph, expectation, provider, seen)
    judged = dict.fromkeys(task for expected in expectation.batches for task in expected.batch.tasks)
    tasks = tuple(_task_report(task, bundle.manifest, graph.order, expectation, seen) for task in judged)
    return ProviderReport(provider, tasks)


def _run_outputs(bundle: Bundle, model: Model, expectation: Expectation, seen: _Seen) -> None:
    for expected in expectation.batches:
        observation = _run(bundle, model, expected, seen)
        if observation is None:
            continue
        outputs = observation.outputs
        _compare_outputs(seen.error, expected, outputs, seen)
        _check_tasks(expected, outputs, seen)
        _count(expected, seen)
        seen.answers.add(expected, outputs, bundle.manifest)


def _run_observed(bundle: Bundle, graph: Graph, expectation: Expectation, provider: str, seen: _Seen) -> None:
    model = observed(bundle, graph, provider)
    for expected in expectation.batches:
        observation = _run(bundle, model, expected, seen)
        if observation is None:
            continue
        _compare_outputs(seen.watched, expected, observation.outputs, seen)
        for module, exact in expected.modules.items():
            if module in observation.modules:
                _compare(seen.error, expected, ("module", module), observation.modules[module], exact, seen)
        _check_experts(expectation, expected, observation, seen)
        _check_group(expected, observation, seen)


def _run(bundle: Bundle, model: Model, expected: Expected, seen: _Seen) -> Observation | None:
    """One batch; None where the model does not run on it, which is then held against its tasks."""
    try:
        return model.run(expected.batch, bundle_ids(bundle.manifest, expected.batch))
    except (RequestError, BundleError) as error:  # the inputs are eptx's own
        for task in expected.batch.tasks:
            seen.complaints.setdefault(
                (task, MODEL_FILE), f"does not run on the batch {expected.batch.name!r}: {error}"
            )
        return None


def _run_rounded(bundle: Bundle, model: Model, expectation: Expectation, seen: _Seen) -> None:
    """As shipped, with activations rounded to 8 bits: how far that is from the reference is told, and not judged."""
    for expected in expectation.batches:
        observation = _run(bundle, model, expected, seen)
        if observation is not None:
            _compare_outputs(seen.rounded, expected, observation.outputs, seen)
            seen.rounded_answers.add(expected, observation.outputs, bundle.manifest)


def _compare_outputs(spreads: Spreads, expected: Expected, outputs: Mapping[str, np.ndarray], seen: _Seen) -> None:
    for name, exact in (*expected.outputs.items(), *expected.inner.items()):
        if name in outputs:
            _compare(spreads, expected, ("output", name), outputs[name], exact, seen)


def _compare(
    spreads: Spreads,
    expected: Expected,
    what: tuple[Literal["module", "output"], str],
    found: np.ndarray,
    exact: np.ndarray,
    seen: _Seen,
) -> None:
    """Adds up how far the bundle is from the float64 model, task by task."""
    kind, name = what
    fitted = _padded(found, exact) if kind == "output" else _like(found, exact)
    for task in dict.fromkeys(expected.batch.tasks):
        if fitted is None:
            message = f"has shape {list(found.shape)}; the trained model gives {list(exact.shape)}"
            seen.complaints.setdefault((task, name), message)
            continue
        error = fitted[0] - fitted[1]
        spreads[Subject(task, kind, name)].add(kept_values(error, expected.rows_of(task), expected.batch))


def _padded(found: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Both in one shape: logits end in zeros where another task has more labels, and a static bundle has one task's."""
    if found.ndim != exact.ndim or found.shape[:-1] != exact.shape[:-1]:
        return None
    width = max(found.shape[-1], exact.shape[-1])
    wide = [np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, width - a.shape[-1])]) for a in (found, exact)]
    return wide[0], wide[1]


def _like(found: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The graph may hold a module's output with rows and positions in one axis, or one row that all share."""
    if found.ndim == exact.ndim and found.shape[0] == 1:
        found = np.broadcast_to(found, (len(exact), *found.shape[1:]))
    if found.size != exact.size or found.shape[-1] != exact.shape[-1]:
        return None
    return found.reshape(exact.shape), exact


def _count(expected: Expected, seen: _Seen) -> None:
    for task, judged in zip(expected.batch.tasks, expected.judged.tolist(), strict=True):
        rows, aside = seen.rows.get(task, (0, 0))
        seen.rows[task] = (rows + judged, aside + (not judged))


def _check_tasks(expected: Expected, outputs: Mapping[str, np.ndarray], seen: _Seen) -> None:
    """The task that a row to infer was given."""
    if TASK_ID_USED not in outputs:
        return
    wrong = expected.rows_of(AUTO) & (outputs[TASK_ID_USED] != expected.task)
    for row in np.flatnonzero(wrong):
        found, wanted = int(outputs[TASK_ID_USED][row]), int(expected.task[row])
        seen.complaints.setdefault((AUTO, TASK_ID_USED), f"infers task {found}; the reference infers {wanted}")


def _check_experts(expectation: Expectation, expected: Expected, observation: Observation, seen: _Seen) -> None:
    """EPT: the experts of every row whose task was named."""
    for routes, (module, table) in product(observation.routes, expectation.experts.items()):
        route = routes.get(module)
        for row in wrong_rows(table, expected.task, route.choice) if route is not None else ():
            task, index = expected.batch.tasks[row], expected.task[row]
            if not expected.judged[row] or task == AUTO or route is None:
                continue
            if table.tied[index]:
                seen.ties.setdefault(task, module)
            else:
                found, wanted = sorted(route.choice[row].tolist()), table.experts[index].tolist()
                message = f"its router chooses experts {_some(found)}; the reference chooses {_some(wanted)}"
                seen.complaints.setdefault((task, module), message)


def _check_group(expected: Expected, observation: Observation, seen: _Seen) -> None:
    """TuckA: the group of every module, of those that its rows have one for."""
    for routes, groups in zip(observation.routes, expected.groups, strict=False):
        for module in (name for name in groups if name in routes):
            wanted = np.broadcast_to(groups[module], expected.batch.rows)
            for row, found in enumerate(np.broadcast_to(routes[module].choice, expected.batch.rows).tolist()):
                task = expected.batch.tasks[row]
                if found != wanted[row] >= 0 and expected.judged[row] and task != BASE_TASK:
                    message = f"its route is group {found}; the reference's is group {int(wanted[row])}"
                    seen.complaints.setdefault((task, module), message)


def _some(experts: Sequence[int]) -> str:
    return " and ".join(map(str, experts))


def _task_report(
    task: str, manifest: Manifest, order: Sequence[str], expectation: Expectation, seen: _Seen
) -> TaskReport:
    typical, own = _typical(task, order, expectation), own_type(manifest)

    def measured(kind: str, name: str, error: Spreads) -> Measured:
        subject = Subject(task, kind, name)  # type: ignore[arg-type]
        noise, scale, effect = (s[subject] for s in (expectation.noise, expectation.scale, expectation.effect))
        effect_ratio = ratio(effect, noise, scale, own, typical) if effect.count else None
        return Measured(
            ratio(error[subject], noise, scale, own, typical),
            error[subject].rms,
            noise.rms,
            scale.rms,
            effect.rms if effect.count else None,
            expectation.folded.get(name, effect_ratio),
        )

    names = dict.fromkeys(s.name for s in expectation.scale if s.kind == "output" and s.task == task)
    modules = {module: measured("module", module, seen.error) for module in order}
    outputs = {name: measured("output", name, seen.error) for name in names}
    watched = {name: measured("output", name, seen.watched) for name in names}
    rows, aside = seen.rows.get(task, (0, 0))
    tie = expectation.unclear.get(task) or seen.ties.get(task)
    where, why = (None, None) if tie is not None else _failure(task, manifest, modules, outputs, watched, seen)
    if expectation.wrong:
        where, why = next(iter(expectation.wrong.items()))
    return TaskReport(
        task=task,
        adapted=task != BASE_TASK,
        rows=rows,
        rows_set_aside=aside,
        modules=modules,
        outputs=outputs,
        tied_at=tie,
        failed_at=where,
        reason=why,
        rounded=_rounded(task, expectation, seen),
        **seen.answers.summary(task),
    )


def _rounded(task: str, expectation: Expectation, seen: _Seen) -> dict[str, Any] | None:
    """What rounding activations to 8 bits does to a task's outputs."""
    found = {s.name: seen.rounded[s].rms / (expectation.scale[s].rms or 1.0) for s in seen.rounded if s.task == task}
    if not found:
        return None
    answers = seen.rounded_answers.summary(task)
    return {"relative_rms": found, "argmax_agreement": answers["argmax_agreement"], "greedy": answers["greedy"]}


def _typical(task: str, order: Sequence[str], expectation: Expectation) -> float:
    """The median over modules of noise over scale."""
    subjects = [Subject(task, "module", module) for module in order]
    relative = [expectation.noise[s].rms / expectation.scale[s].rms for s in subjects if expectation.scale[s].rms]
    return float(np.median(relative)) if relative else 0.0


def _failure(
    task: str,
    manifest: Manifest,
    modules: Mapping[str, Measured],
    outputs: Mapping[str, Measured],
    watched: Mapping[str, Measured],
    seen: _Seen,
) -> tuple[str | None, str | None]:
    """The first thing that is wrong, in the order in which the model computes, and what is wrong with it."""
    said = {name: text for (whose, name), text in seen.complaints.items() if whose == task}
    if MODEL_FILE in said:
        return MODEL_FILE, said[MODEL_FILE]
    for module, measured in modules.items():
        if measured.ratio > LIMIT or module in said:
            return module, said.get(module) or _times(measured)
    if TASK_ID_USED in said:
        return TASK_ID_USED, said[TASK_ID_USED]
    for name, measured in outputs.items():
        if name in said:
            return name, said[name]
        if measured.ratio > LIMIT:
            own_heads = name == "logits" and any(spec.labels is not None for spec in manifest.tasks)
            others_fine = all(other.ratio <= LIMIT for other_name, other in outputs.items() if other_name != name)
            if watched[name].ratio <= LIMIT:
                return name, f"{_times(measured)}, but not when observed: ONNX Runtime's optimiser changes it"
            return (HEADS if own_heads and others_fine else name), _times(measured)
    return None, None


def _times(measured: Measured) -> str:
    return f"{measured.ratio:.3g} times the noise floor"
