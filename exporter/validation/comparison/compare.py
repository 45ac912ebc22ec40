"""The bundle run one way, held against what it should compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Literal

import numpy as np

from eptx.bundle import Bundle
from eptx.errors import BundleError
from eptx.exporter.validation.bundle.backends import Way
from eptx.exporter.validation.bundle.instrumented import Graph
from eptx.exporter.validation.bundle.models import Model, Observation, observed, sharpened, shipped
from eptx.exporter.validation.comparison.verdict import Seen as _Seen
from eptx.exporter.validation.comparison.verdict import task_report
from eptx.exporter.validation.distance import Spreads, Subject
from eptx.exporter.validation.inputs.batch import bundle_ids
from eptx.exporter.validation.reference.expectation import Expectation
from eptx.exporter.validation.reference.expected import Expected, kept_values
from eptx.exporter.validation.reference.router_ties import wrong_rows
from eptx.exporter.validation.report.report import ProviderReport
from eptx.manifest.names import AUTO_TASK, BASE_TASK, TASK_ID_USED
from eptx.progress import step


def judge(bundle: Bundle, graph: Graph, expectation: Expectation, way: Way) -> ProviderReport:
    """Runs the bundle as shipped and the observable copy of it, and compares both with the reference.

    Raises:
        KernelsRefusedError: the way is by kernels, and they do not take this model.
        BundleError: ONNX Runtime cannot load the model.
        NotSupportedError: the provider does not start on this machine.
    """
    seen = _Seen()
    # what is no number is judged, and is no reason for warnings of numpy
    with np.errstate(all="ignore"):
        with step(f"running the bundle as shipped ({way.name})"):
            if not graph.rounds:
                _run_outputs(bundle, shipped(bundle, way), expectation, seen)
            else:
                _run_outputs(bundle, sharpened(bundle, graph, way), expectation, seen)
                _run_rounded(bundle, shipped(bundle, way), expectation, seen)
        with step(f"running the bundle observed ({way.name})"):
            _run_observed(bundle, graph, expectation, way, seen)
        judged = dict.fromkeys(task for expected in expectation.batches for task in expected.batch.tasks)
        tasks = tuple(task_report(task, bundle.manifest, graph.order, expectation, seen) for task in judged)
    return ProviderReport(way.provider, tasks, way.operators)


def _run_outputs(bundle: Bundle, model: Model, expectation: Expectation, seen: _Seen) -> None:
    for expected in expectation.batches:
        _count(expected, seen)
        with _noted(expected, seen):
            outputs = model.run(expected.batch, bundle_ids(bundle.manifest, expected.batch)).outputs
            _compare_outputs(seen.error, expected, outputs, seen)
            _check_tasks(expected, outputs, seen)
            seen.answers.add(expected, outputs, bundle.manifest)


def _run_observed(bundle: Bundle, graph: Graph, expectation: Expectation, way: Way, seen: _Seen) -> None:
    model = observed(bundle, graph, way)
    for expected in expectation.batches:
        if not expected.batch.inside:
            continue
        with _noted(expected, seen):
            observation = model.run(expected.batch, bundle_ids(bundle.manifest, expected.batch))
            _compare_outputs(seen.watched, expected, observation.outputs, seen)
            _compare_modules(expected, observation, seen)
            _check_experts(expectation, expected, observation, seen)
            _check_group(expected, observation, seen)


def _run_rounded(bundle: Bundle, model: Model, expectation: Expectation, seen: _Seen) -> None:
    """As shipped, with activations rounded to 8 bits: how far that is from the reference is told, and not judged."""
    for expected in expectation.batches:
        with _noted(expected, seen):
            outputs = model.run(expected.batch, bundle_ids(bundle.manifest, expected.batch)).outputs
            _compare_outputs(seen.rounded, expected, outputs, seen)
            seen.rounded_answers.add(expected, outputs, bundle.manifest)


@contextmanager
def _noted(expected: Expected, seen: _Seen) -> Iterator[None]:
    """A batch that cannot be compared is as wrong as can be, and the others are judged all the same."""
    try:
        yield
    except BundleError as error:
        for task in dict.fromkeys(expected.batch.tasks):
            seen.broken.setdefault(task, f"on the batch {expected.batch.name!r}, {error}")
            for name in expected.outputs:
                seen.error[Subject(task, "output", name)].add(np.array([np.inf]))


def _compare_modules(expected: Expected, observation: Observation, seen: _Seen) -> None:
    for module, exact in expected.modules.items():
        if module in observation.modules:
            _compare(seen.error, expected, ("module", module), observation.modules[module], exact, seen)


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
    wrong = expected.rows_of(AUTO_TASK) & (outputs[TASK_ID_USED] != expected.task)
    for row in np.flatnonzero(wrong):
        found, wanted = int(outputs[TASK_ID_USED][row]), int(expected.task[row])
        seen.complaints.setdefault((AUTO_TASK, TASK_ID_USED), f"infers task {found}; the reference infers {wanted}")


def _check_experts(expectation: Expectation, expected: Expected, observation: Observation, seen: _Seen) -> None:
    """EPT: the experts of every row whose task was named."""
    for routes, (module, table) in product(observation.routes, expectation.experts.items()):
        route = routes.get(module)
        alike = route is not None and route.choice.ndim == 2  # another method's routes are of another form
        for row in wrong_rows(table, expected.task, route.choice) if route is not None and alike else ():
            task, index = expected.batch.tasks[row], expected.task[row]
            if not expected.judged[row] or task == AUTO_TASK or route is None:
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
        for module in (name for name in groups if name in routes and routes[name].choice.ndim == 1):
            wanted = np.broadcast_to(groups[module], expected.batch.rows)
            for row, found in enumerate(np.broadcast_to(routes[module].choice, expected.batch.rows).tolist()):
                task = expected.batch.tasks[row]
                if found != wanted[row] >= 0 and expected.judged[row] and task != BASE_TASK:
                    message = f"its route is group {found}; the reference's is group {int(wanted[row])}"
                    seen.complaints.setdefault((task, module), message)


def _some(experts: Sequence[int]) -> str:
    return " and ".join(map(str, experts))
