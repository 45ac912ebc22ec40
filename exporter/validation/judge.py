"""The bundle run one way, held against what it should compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product

import numpy as np

from eptx._manifest import TASK_ID_USED
from eptx._progress import step
from eptx.bundle import Bundle
from eptx.errors import BundleError
from eptx.exporter.read import BASE_TASK
from eptx.exporter.validation.asking import Expected, kept_values
from eptx.exporter.validation.batches import AUTO, bundle_ids
from eptx.exporter.validation.choices import wrong_rows
from eptx.exporter.validation.distance import Spreads, Subject
from eptx.exporter.validation.expect import Expectation
from eptx.exporter.validation.models import Model, Observation, observed, sharpened, shipped
from eptx.exporter.validation.observe import Graph
from eptx.exporter.validation.report import ProviderReport
from eptx.exporter.validation.verdict import Seen as _Seen
from eptx.exporter.validation.verdict import task_report
from eptx.exporter.validation.ways import Way


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
            _compare_outputs(seen.error, expected, outputs)
            _check_tasks(expected, outputs, seen)
            seen.answers.add(expected, outputs, bundle.manifest)


def _run_observed(bundle: Bundle, graph: Graph, expectation: Expectation, way: Way, seen: _Seen) -> None:
    model = observed(bundle, graph, way)
    for expected in expectation.batches:
        if not expected.batch.inside:
            continue
        with _noted(expected, seen):
            observation = model.run(expected.batch, bundle_ids(bundle.manifest, expected.batch))
            _compare_outputs(seen.watched, expected, observation.outputs)
            _compare_modules(expected, observation, seen)
            _check_experts(expectation, expected, observation, seen)
            _check_group(graph, expected, observation, seen)


def _run_rounded(bundle: Bundle, model: Model, expectation: Expectation, seen: _Seen) -> None:
    """As shipped, with activations rounded to 8 bits: how far that is from the reference is told, and not judged."""
    for expected in expectation.batches:
        with _noted(expected, seen):
            outputs = model.run(expected.batch, bundle_ids(bundle.manifest, expected.batch)).outputs
            _compare_outputs(seen.rounded, expected, outputs)
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
    for task in dict.fromkeys(expected.batch.tasks):
        rows = expected.rows_of(task)
        for module, exact in expected.modules.items():
            error = _like(observation.modules[module], exact, module) - exact
            seen.error[Subject(task, "module", module)].add(kept_values(error, rows, expected.batch))


def _compare_outputs(spreads: Spreads, expected: Expected, outputs: Mapping[str, np.ndarray]) -> None:
    for name, exact in expected.outputs.items():
        found, wanted = _same_width(outputs[name], exact)
        error = found - wanted
        for task in dict.fromkeys(expected.batch.tasks):
            spreads[Subject(task, "output", name)].add(kept_values(error, expected.rows_of(task), expected.batch))


def _same_width(found: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits are padded with zeros to the widest task, and a static bundle has one task's alone."""
    if found.ndim != exact.ndim or found.shape[:-1] != exact.shape[:-1]:
        raise BundleError(f"an output has shape {list(found.shape)}; the reference gives {list(exact.shape)}")
    width = max(found.shape[-1], exact.shape[-1])
    return _padded(found, width), _padded(exact, width)


def _padded(array: np.ndarray, width: int) -> np.ndarray:
    if array.shape[-1] == width:
        return array
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, width - array.shape[-1])])


def _like(found: np.ndarray, exact: np.ndarray, module: str) -> np.ndarray:
    """The graph may hold a module's output with rows and positions in one axis, or one row that all share."""
    if found.ndim == exact.ndim and found.shape[0] == 1:
        found = np.broadcast_to(found, (len(exact), *found.shape[1:]))
    if found.size != exact.size or found.shape[-1] != exact.shape[-1]:
        raise BundleError(
            f"{module} has shape {list(found.shape)} in the model; the reference gives {list(exact.shape)}"
        )
    return found.reshape(exact.shape)


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
        seen.choices.setdefault((AUTO, TASK_ID_USED), f"infers task {found}; the reference infers {wanted}")


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
                seen.choices.setdefault((task, module), message)


def _check_group(graph: Graph, expected: Expected, observation: Observation, seen: _Seen) -> None:
    """TuckA: the group, which all modules share."""
    for routes, group in zip(observation.routes, expected.groups, strict=False):
        module = next((name for name in graph.order if name in routes), None)
        if group is None or module is None:
            return
        wanted = np.broadcast_to(group, expected.batch.rows)
        for row, found in enumerate(np.broadcast_to(routes[module].choice, expected.batch.rows).tolist()):
            task = expected.batch.tasks[row]
            if found != wanted[row] and expected.judged[row] and task != BASE_TASK:
                message = f"its route is group {found}; the reference's is group {int(wanted[row])}"
                seen.choices.setdefault((task, module), message)


def _some(experts: Sequence[int]) -> str:
    return " and ".join(map(str, experts))
