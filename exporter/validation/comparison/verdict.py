"""What one way's runs amount to, and what that says of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eptx.bundle import Manifest
from eptx.exporter.validation.comparison.answers import Answers
from eptx.exporter.validation.distance import LIMIT, WORST, Spreads, Subject, ratio
from eptx.exporter.validation.reference.expectation import Expectation
from eptx.exporter.validation.reference.rounding import own_type
from eptx.exporter.validation.report.report import Measured, TaskReport
from eptx.manifest.names import BASE_TASK, TASK_ID_USED

HEADS, MODEL = "task_heads", "model.onnx"


@dataclass
class Seen:
    """What the runs of one way amount to.

    Attributes:
        error: bundle less float64: modules and, as shipped, outputs.
        watched: the same for the outputs of the observable copy.
        complaints: (task, module or output) -> what is wrong with it where that is not a distance: what its router
            chose instead of what the trained model chooses, or its shape.
        ties: task -> the module whose router chose otherwise where the reference's choice is a near tie.
        rows: task -> (judged rows, rows set aside).
        answers: logits of both, for argmax agreement and metrics.
        rounded: of a quantized bundle, the errors of its outputs where activations are rounded to 8 bits, as shipped.
        rounded_answers: their logits.
        broken: task -> on which batch the model does not run, or gives something of another shape, and how.
    """

    error: Spreads = field(default_factory=Spreads)
    watched: Spreads = field(default_factory=Spreads)
    complaints: dict[tuple[str, str], str] = field(default_factory=dict)
    ties: dict[str, str] = field(default_factory=dict)
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    rounded: Spreads = field(default_factory=Spreads)
    rounded_answers: Answers = field(default_factory=Answers)
    broken: dict[str, str] = field(default_factory=dict)


def task_report(
    task: str, manifest: Manifest, order: Sequence[str], expectation: Expectation, seen: Seen
) -> TaskReport:
    """One task's report, from all that was seen.

    Args:
        task: its name.
        manifest: of the bundle.
        order: the modules as the graph computes them.
        expectation: what was expected.
        seen: what was seen.
    """
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
    rows, aside = seen.rows[task]
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


def _rounded(task: str, expectation: Expectation, seen: Seen) -> dict[str, Any] | None:
    """What rounding activations to 8 bits does to a task's outputs."""
    found = {s.name: seen.rounded[s].rms / (expectation.scale[s].rms or 1.0) for s in seen.rounded if s.task == task}
    if not found:
        return None
    answers = seen.rounded_answers.summary(task)
    return {"relative_rms": found, "argmax_agreement": answers["argmax_agreement"], "greedy": answers["greedy"]}


def _typical(task: str, order: Sequence[str], expectation: Expectation) -> float:
    """The median over modules of noise over scale."""
    sizes = [(expectation.noise[s].rms, expectation.scale[s].rms) for s in (Subject(task, "module", m) for m in order)]
    relative = [noise / scale for noise, scale in sizes if scale and np.isfinite((noise, scale)).all()]
    return float(np.median(relative)) if relative else 0.0


def _failure(
    task: str,
    manifest: Manifest,
    modules: Mapping[str, Measured],
    outputs: Mapping[str, Measured],
    watched: Mapping[str, Measured],
    seen: Seen,
) -> tuple[str | None, str | None]:
    """The first thing that is wrong, in the order in which the model computes, and what is wrong with it."""
    if task in seen.broken:
        return MODEL, seen.broken[task]
    said = {name: text for (whose, name), text in seen.complaints.items() if whose == task}
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
                return name, f"{_times(measured)}, but not when observed: ONNX Runtime's optimizer changes it"
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
