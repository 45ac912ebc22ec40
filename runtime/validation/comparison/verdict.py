"""From the results on one backend to the report of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eptx.bundle import Manifest
from eptx.manifest.names import BASE_TASK, TASK_ID_USED
from eptx.runtime.validation.comparison.answers import Answers
from eptx.runtime.validation.comparison.results import Measured, RoundedActivations, TaskReport
from eptx.runtime.validation.distance import LIMIT, WORST, Spreads, Subject, own_type, ratio
from eptx.runtime.validation.expectation import Expectation, Floors

HEADS, MODEL = "task_heads", "model.onnx"


@dataclass
class RunResults:
    """What all runs on one backend gave.

    Attributes:
        error: bundle less float64: of modules, and of the outputs of the bundle as it is shipped.
        instrumented_error: the same of the outputs of the instrumented copy.
        complaints: (task, module or output) -> what is wrong with it, where that is not a distance: another route than
            the reference's, or another shape.
        ties: task -> the module whose router chose otherwise where the reference's choice is a router tie.
        rows: task -> (rows compared, rows set aside).
        answers: the logits of both, for argmax agreement and metrics.
        rounded_error: of a bundle that rounds activations to 8 bits: the errors of its outputs with that.
        rounded_answers: the logits with that.
        broken: task -> the batch on which the model does not run, and the error.
    """

    error: Spreads = field(default_factory=Spreads)
    instrumented_error: Spreads = field(default_factory=Spreads)
    complaints: dict[tuple[str, str], str] = field(default_factory=dict)
    ties: dict[str, str] = field(default_factory=dict)
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    rounded_error: Spreads = field(default_factory=Spreads)
    rounded_answers: Answers = field(default_factory=Answers)
    broken: dict[str, str] = field(default_factory=dict)


def task_report(
    task: str, manifest: Manifest, order: Sequence[str], expectation: Expectation[Any], results: RunResults
) -> TaskReport:
    """One task's report.

    Args:
        task: its name.
        manifest: of the bundle.
        order: the modules as the graph computes them.
        expectation: what the reference gave.
        results: what was seen.
    """
    floors = expectation.floors
    typical, own = _typical(task, order, floors), own_type(manifest)

    def measured(kind: str, name: str, error: Spreads) -> Measured:
        subject = Subject(task, kind, name)  # type: ignore[arg-type]
        noise, scale, effect = (s[subject] for s in (floors.noise, floors.scale, floors.effect))
        effect_ratio = ratio(effect, noise, scale, own, typical) if effect.count else None
        return Measured(
            ratio(error[subject], noise, scale, own, typical),
            error[subject].rms,
            noise.rms,
            scale.rms,
            effect.rms if effect.count else None,
            expectation.folded.get(name, effect_ratio),
        )

    names = dict.fromkeys(s.name for s in floors.scale if s.kind == "output" and s.task == task)
    modules = {module: measured("module", module, results.error) for module in order}
    outputs = {name: measured("output", name, results.error) for name in names}
    instrumented = {name: measured("output", name, results.instrumented_error) for name in names}
    rows, aside = results.rows[task]
    tie = expectation.unclear.get(task) or results.ties.get(task)
    where, why = (None, None) if tie is not None else _failure(task, manifest, modules, outputs, instrumented, results)
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
        rounded=_rounded(task, expectation, results),
        argmax_agreement=results.answers.argmax_agreement(task),
        metric=results.answers.metric(task),
        greedy=results.answers.greedy(task),
    )


def _rounded(task: str, expectation: Expectation[Any], results: RunResults) -> RoundedActivations | None:
    """What rounding activations to 8 bits does to a task's outputs."""
    error, scale = results.rounded_error, expectation.floors.scale
    found = {s.name: error[s].rms / (scale[s].rms or 1.0) for s in error if s.task == task}
    if not found:
        return None
    answers = results.rounded_answers
    return RoundedActivations(found, answers.argmax_agreement(task), answers.greedy(task))


def _typical(task: str, order: Sequence[str], floors: Floors) -> float:
    """The noise relative to the values: the median over modules."""
    sizes = [(floors.noise[s].rms, floors.scale[s].rms) for s in (Subject(task, "module", m) for m in order)]
    relative = [noise / scale for noise, scale in sizes if scale and np.isfinite((noise, scale)).all()]
    return float(np.median(relative)) if relative else 0.0


def _failure(
    task: str,
    manifest: Manifest,
    modules: Mapping[str, Measured],
    outputs: Mapping[str, Measured],
    instrumented: Mapping[str, Measured],
    results: RunResults,
) -> tuple[str | None, str | None]:
    """The first module or output that is wrong, in the order of the graph, and what is wrong with it."""
    if task in results.broken:
        return MODEL, results.broken[task]
    said = {name: text for (whose, name), text in results.complaints.items() if whose == task}
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
            others = [other.ratio for other_name, other in outputs.items() if other_name != name]
            others_fine = bool(others) and max(others) <= LIMIT  # what the heads read is right
            if instrumented[name].ratio <= LIMIT:
                return (
                    name,
                    f"{_times(measured)}, but only without further outputs: ONNX Runtime's optimizer changes it",
                )
            return (HEADS if own_heads and others_fine else name), _times(measured)
    return None, None


def _times(measured: Measured) -> str:
    if measured.ratio >= WORST and not np.isfinite(measured.noise):
        return "the reference itself is infinite or not a number there"
    if measured.ratio >= WORST and not np.isfinite(measured.error):
        return "it is infinite or not a number somewhere"
    if measured.ratio >= WORST:
        return "its error is more than 1e30 times the noise floor"
    return f"{measured.ratio:.3g} times the noise floor"
