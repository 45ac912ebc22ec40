"""Runs the bundle on one backend and compares it with the reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any, Literal

import numpy as np

from eptx.bundle import Bundle
from eptx.errors import BundleError
from eptx.manifest.names import AUTO_TASK, BASE_TASK, TASK_ID_USED
from eptx.progress import step
from eptx.runtime.ort.memory import release_models
from eptx.runtime.validation.comparison.results import BackendReport
from eptx.runtime.validation.comparison.verdict import RunResults, task_report
from eptx.runtime.validation.distance import Spreads, Subject
from eptx.runtime.validation.expectation import Expectation
from eptx.runtime.validation.expected import Expected
from eptx.runtime.validation.routers import wrong_rows
from eptx.runtime.validation.running.backends import Backend
from eptx.runtime.validation.running.instrumented import InstrumentedModel
from eptx.runtime.validation.running.models import (
    BundleModel,
    Observation,
    open_instrumented,
    open_shipped,
    open_with_float_activations,
)
from eptx.runtime.validation.values import Values, errors, kept_values


def compare_with_reference(
    bundle: Bundle, instrumented: InstrumentedModel, expectation: Expectation[Any], backend: Backend
) -> BackendReport:
    """Runs the bundle as it is shipped and its instrumented copy, and compares both with the reference.

    Raises:
        KernelsRefusedError: the native kernels do not take this model.
        BundleError: ONNX Runtime cannot load the model.
        NotSupportedError: the provider does not start on this machine, does not load the model, or takes no node of it.
    """
    results = RunResults()
    # NaN and infinity are part of the verdict; numpy need not warn of them
    with np.errstate(all="ignore"):
        with step(f"running the bundle as shipped ({backend.name})"):
            nodes = _run_shipped(bundle, instrumented, expectation, backend, results)
        release_models(bundle.size)
        with step(f"running the bundle observed ({backend.name})"):
            _run_observed(bundle, instrumented, expectation, backend, results)
        release_models(bundle.size)
        names = dict.fromkeys(task for expected in expectation.batches for task in expected.batch.tasks)
        tasks = tuple(task_report(task, bundle.manifest, instrumented.order, expectation, results) for task in names)
    return BackendReport(backend.provider, tasks, backend.operators, nodes)


def _run_shipped(
    bundle: Bundle,
    instrumented: InstrumentedModel,
    expectation: Expectation[Any],
    backend: Backend,
    results: RunResults,
) -> Mapping[str, int] | None:
    """Runs what is shipped, one model in memory at a time; how many nodes run on which provider."""
    shipped = open_shipped(bundle, backend)
    nodes = shipped.nodes
    if not instrumented.quantizes_activations:
        _run_outputs(bundle, shipped, expectation, results)
        return nodes
    _run_rounded(bundle, shipped, expectation, results)
    del shipped
    release_models(bundle.size)
    _run_outputs(bundle, open_with_float_activations(bundle, instrumented, backend), expectation, results)
    return nodes


def _run_outputs(bundle: Bundle, model: BundleModel, expectation: Expectation[Any], results: RunResults) -> None:
    for expected in expectation.batches:
        for task, compared in zip(expected.batch.tasks, expected.compared.tolist(), strict=True):
            rows, aside = results.rows.get(task, (0, 0))
            results.rows[task] = (rows + compared, aside + (not compared))
        with _failures_noted(expected, results):
            outputs = model.run(expected.batch).outputs
            _compare_outputs(results.error, expected, outputs, results)
            _check_tasks(expected, outputs, results)
            results.answers.add(expected, outputs, bundle.manifest)


def _run_observed(
    bundle: Bundle,
    instrumented: InstrumentedModel,
    expectation: Expectation[Any],
    backend: Backend,
    results: RunResults,
) -> None:
    model = open_instrumented(bundle, instrumented, backend)
    for expected in expectation.batches:
        if not expected.batch.inside:
            continue
        with _failures_noted(expected, results):
            observation = model.run(expected.batch)
            _compare_outputs(results.instrumented_error, expected, observation.outputs, results)
            _compare(results.error, "module", expected, observation.modules, expected.modules, results)
            _check_experts(expectation, expected, observation, results)
            _check_group(expected, observation, results)


def _run_rounded(bundle: Bundle, model: BundleModel, expectation: Expectation[Any], results: RunResults) -> None:
    """As it is shipped, with activations rounded to 8 bits: reported, but without an influence on the verdict."""
    for expected in expectation.batches:
        with _failures_noted(expected, results):
            outputs = model.run(expected.batch).outputs
            _compare_outputs(results.rounded_error, expected, outputs, results)
            results.rounded_answers.add(expected, outputs, bundle.manifest)


@contextmanager
def _failures_noted(expected: Expected[Any], results: RunResults) -> Iterator[None]:
    """A batch that cannot be compared has an infinite error; the other batches are still compared."""
    try:
        yield
    except BundleError as error:
        for task in dict.fromkeys(expected.batch.tasks):
            results.broken.setdefault(task, f"on the batch {expected.batch.name!r}, {error}")
            for name in expected.outputs:
                results.error[Subject(task, "output", name)].add(np.array([np.inf]))


def _compare_outputs(
    spreads: Spreads, expected: Expected[Any], outputs: Mapping[str, np.ndarray], results: RunResults
) -> None:
    _compare(spreads, "output", expected, outputs, {**expected.outputs, **expected.inner}, results)


def _compare(
    spreads: Spreads,
    kind: Literal["module", "output"],
    expected: Expected[Any],
    found: Mapping[str, np.ndarray],
    exact: Mapping[str, Values],
    results: RunResults,
) -> None:
    """Adds the bundle's distance from the float64 model to each task's spread, by module or output."""
    fit = _padded if kind == "output" else _like
    for name, task in product((name for name in exact if name in found), dict.fromkeys(expected.batch.tasks)):
        fitted = fit(found[name], exact[name].shape)
        if fitted is None:
            message = f"has shape {list(found[name].shape)}; the trained model gives {list(exact[name].shape)}"
            results.complaints.setdefault((task, name), message)
            continue
        same, more = fitted
        rows, spread = expected.rows_of(task), spreads[Subject(task, kind, name)]
        spread.add(errors(same, exact[name], rows, expected.batch))
        spread.add(kept_values(more, rows, expected.batch))


def _padded(found: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray] | None:
    """What was found in the shape of what is exact, and what it has more, which should be zero.

    Logits end in zeros where another task has more labels. None if the shapes do not fit.
    """
    if found.shape[:-1] != tuple(shape[:-1]):
        return None
    width = shape[-1]
    lacks = max(0, width - found.shape[-1])
    wide = np.pad(found, [(0, 0)] * (found.ndim - 1) + [(0, lacks)])
    return wide[..., :width], wide[..., width:]


def _like(found: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray] | None:
    """As `_padded`, or None: a graph may have rows and positions in one axis, slots apart, or one row for all."""
    if found.ndim == len(shape) and found.shape[0] == 1:
        found = np.broadcast_to(found, (shape[0], *found.shape[1:]))
    if found.size != math.prod(shape) or shape[-1] % max(1, found.shape[-1]):
        return None
    same = found.reshape(tuple(shape))
    return same, same[..., :0]


def _check_tasks(expected: Expected[Any], outputs: Mapping[str, np.ndarray], results: RunResults) -> None:
    """Of rows whose task is inferred, that it is the reference's."""
    if TASK_ID_USED not in outputs:
        return
    wrong = expected.rows_of(AUTO_TASK) & (outputs[TASK_ID_USED] != expected.task)
    for row in np.flatnonzero(wrong):
        found, wanted = int(outputs[TASK_ID_USED][row]), int(expected.task[row])
        results.complaints.setdefault((AUTO_TASK, TASK_ID_USED), f"infers task {found}; the reference infers {wanted}")


def _check_experts(
    expectation: Expectation[Any], expected: Expected[Any], observation: Observation, results: RunResults
) -> None:
    """EPT: of rows whose task was named, that the experts are the reference's."""
    for routes, (module, table) in product(observation.routes, expectation.experts.items()):
        route = routes.get(module)
        if route is None or route.choice.ndim != 2:  # TuckA's routes are [n]
            continue
        for row in wrong_rows(table, expected.task, route.choice):
            task, index = expected.batch.tasks[row], expected.task[row]
            if not expected.compared[row] or task == AUTO_TASK:
                continue
            if table.tied[index]:
                results.ties.setdefault(task, module)
                continue
            found, wanted = (
                " and ".join(map(str, sorted(e.tolist()))) for e in (route.choice[row], table.experts[index])
            )
            message = f"its router chooses experts {found}; the reference chooses {wanted}"
            results.complaints.setdefault((task, module), message)


def _check_group(expected: Expected[Any], observation: Observation, results: RunResults) -> None:
    """TuckA: that every module's group is the reference's."""
    for routes, groups in zip(observation.routes, expected.groups, strict=False):
        for module in (name for name in groups if name in routes and routes[name].choice.ndim == 1):
            wanted = np.broadcast_to(groups[module], expected.batch.rows)
            for row, found in enumerate(np.broadcast_to(routes[module].choice, expected.batch.rows).tolist()):
                task = expected.batch.tasks[row]
                if found != wanted[row] >= 0 and expected.compared[row] and task != BASE_TASK:
                    message = f"its route is group {found}; the reference's is group {int(wanted[row])}"
                    results.complaints.setdefault((task, module), message)
