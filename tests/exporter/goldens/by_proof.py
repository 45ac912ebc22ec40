"""A golden's bundle against the trained model and against a proof: both find the same, of it and of a wrong copy."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import onnx_ir as ir
import pytest

from eptx.bundle import Bundle
from eptx.exporter.validation import Report, ValidateOptions, validate_bundle
from eptx.exporter.validation import run as validation
from eptx.runtime.validation.comparison.results import TaskReport
from eptx.runtime.validation.proof.content import read_proof
from eptx.runtime.validation.proof.validate import validate_against_proof
from tests.exporter.validation.workshop import Workshop


def passes(bundle: Bundle) -> None:
    """Validates a bundle and a copy with one spoilt weight, by the trained model, which runs once, and by its proof."""
    shop = Workshop(bundle.path, bundle.path.parent / f"{bundle.path.name} shop")
    shop.folder.mkdir()
    proof = shop.folder / "proof"
    with mock.patch.object(validation, "run_reference", _once(validation.run_reference)):
        report = validate_bundle(bundle.path, ValidateOptions(providers=["cpu"], record=proof))
        assert report.passed, report.reason
        whole = {
            name
            for known in read_proof(proof).expectation.batches
            for values in (known.modules, known.outputs, known.inner)
            for name, value in values.items()
            if value.columns == value.shape[-1]
        }
        by_proof = validate_against_proof(bundle.path, proof, ["cpu"])
        assert by_proof.passed, by_proof.reason
        _same(report, by_proof, whole)

        wrong = shop.edited(bundle, _spoil).path
        report = validate_bundle(wrong, ValidateOptions(providers=["cpu"]))
    by_proof = validate_against_proof(wrong, proof, ["cpu"])
    assert not report.passed and not by_proof.passed
    assert _failed(report), "no run shows the spoilt weight"
    assert _failed(by_proof) == _failed(report)


def _once(run_reference: Any) -> Any:
    """The reference, which depends on the adapter alone: what it gave for the bundle holds for the spoilt copy."""
    known: list[Any] = []

    def run(*arguments: Any) -> Any:
        if not known:
            known.append(run_reference(*arguments))
        return known[0]

    return run


def _spoil(graph: ir.Graph) -> None:
    """Changes one number of a product's weight in the middle of the graph."""
    weights = [
        value
        for node in graph
        if node.op_type in ("MatMul", "Gemm")
        for value in node.inputs[1:2]
        if value is not None and value.is_initializer()
    ]
    weight = weights[len(weights) // 2]
    array = weight.const_value.numpy().copy()  # type: ignore[union-attr]
    array[3, 5] += 8 * float(np.sqrt(np.square(array).mean()))
    weight.const_value = ir.tensor(array, name=weight.name)


def _tasks(report: Report) -> dict[tuple[str, str], TaskReport]:
    return {(backend.name, task.task): task for backend in report.providers for task in backend.tasks}


def _failed(report: Report) -> set[tuple[str, str]]:
    return {where for where, task in _tasks(report).items() if task.verdict == "fail"}


def _same(report: Report, by_proof: Report, whole: set[str]) -> None:
    """Verdicts and counts are equal, and so are the errors of what the proof holds whole; what it samples is near.

    A ratio of few numbers is counted in the typical noise of modules, of which some may be sampled.
    """
    wanted, found = _tasks(report), _tasks(by_proof)
    assert list(wanted) == list(found)
    for where, task in wanted.items():
        other = found[where]
        for fact in ("verdict", "rows", "rows_set_aside", "tied_at", "argmax_agreement", "greedy"):
            assert getattr(other, fact) == getattr(task, fact), (where, fact)
        figures, others = ({**each.modules, **each.outputs} for each in (task, other))
        assert list(figures) == list(others)
        for name, figure in figures.items():
            same = pytest.approx(figure.error, rel=1e-6 if name in whole else 0.3)
            own_noise = figure.error == pytest.approx(figure.ratio * figure.noise, rel=1e-3)
            near = pytest.approx(figure.ratio, rel=0.02 if name in whole and own_noise else 0.4)
            assert others[name].error == same and others[name].ratio == near, (where, name, figure, others[name])
