"""A choice by a hair is nobody's error; a clear one is."""

from __future__ import annotations

import numpy as np
import pytest

from eptx.exporter.validation import validate_bundle
from eptx.exporter.validation.reference.router_ties import TIE, near_ties, unclear_experts
from eptx.runtime.validation.routers import ExpertTable, wrong_rows
from tests.exporter.validation.adapters import Tensors, changed, linear_shapes, write_ept, write_tucka
from tests.exporter.validation.workshop import Workshop, task


def test_near_ties() -> None:
    exact = np.array([[0.5, 0.3, 0.2], [0.5, 0.5 - 1e-9, 0.0], [0.4, 0.3, 0.3 - 1e-9]])
    assert near_ties(exact, None, 1, "fp32").tolist() == [False, True, False]
    assert near_ties(exact, None, 2, "fp32").tolist() == [False, False, True]
    assert near_ties(exact, None, 3, "fp32").tolist() == [False, False, False]


def test_a_margin_that_rounding_moves_is_a_near_tie() -> None:
    exact = np.array([[0.500, 0.499], [0.6, 0.4], [0.6, 0.4]])
    own = np.array([[0.5003, 0.499], [0.6001, 0.4], [0.4, 0.6]])
    assert near_ties(exact, own, 1, "fp32").tolist() == [True, False, True]


def test_rows_of_a_task_whose_experts_rounding_decides_are_set_aside() -> None:
    nothing = np.zeros(2, dtype=bool)
    table = ExpertTable(np.array([[0, 1], [2, 3]]), np.array([True, False]), np.array([False, True]))
    ids, used = np.array([0, 1, 2, -1, -1]), {"m": np.array([0, 1, 2, 0, 1])}
    assert unclear_experts({"m": table}, ids, used).tolist() == [False, True, False, True, True]
    assert unclear_experts({"m": ExpertTable(table.experts, nothing, nothing)}, ids, used).tolist() == [False] * 5


def test_wrong_rows_ignore_the_order_of_experts_and_rows_without_a_task() -> None:
    nothing = np.zeros(2, dtype=bool)
    table = ExpertTable(np.array([[0, 1], [2, 3]]), nothing, nothing)
    chosen = np.array([[1, 0], [2, 0], [5, 5], [5, 5]])
    assert list(wrong_rows(table, np.array([0, 1, 2, -1]), chosen)) == [1]


def level_gates(tensors: Tensors) -> None:
    """All experts equally probable: which of them win is not said by the adapter."""
    for name in tensors:
        if "lora_gate" in name:
            tensors[name] = np.zeros_like(tensors[name])


@pytest.mark.parametrize("mode", ["conditioned", "dynamic"])
def test_a_router_in_a_tie_is_undecidable_and_not_a_failure(bert: Workshop, mode: str) -> None:
    adapter = write_ept(bert.path(), linear_shapes(bert.base, ("query",)), seed=1)
    tied = changed(adapter, bert.path(), level_gates)
    report = bert.validate(bert.export(tied, mode=mode, top_k=2))
    assert not report.passed
    assert task(report, "task0").verdict == "undecided"
    assert "rounding decides which experts bert.encoder.layer.0.attention.self.query uses" in report.reason
    assert task(report, "base").verdict == "pass"


def test_batches_with_a_near_tie_are_drawn_again(bert: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = write_tucka(bert.path(), linear_shapes(bert.base, ("query", "value")), seed=4)
    bundle = bert.export(adapter, mode="dynamic", routing="row")
    monkeypatch.setitem(TIE, "fp32", 2e-3)
    some = validate_bundle(bundle.path)
    assert some.redrawn > 0
    assert some.passed
    assert task(some, "task0").rows_set_aside == 0
    monkeypatch.setitem(TIE, "fp32", 1.0)
    everything = validate_bundle(bundle.path)
    assert not everything.passed
    assert task(everything, "task0").rows == 0
    assert task(everything, "task0").rows_set_aside == task(some, "task0").rows
    assert "rounding decides what a router chooses for every one of its rows" in everything.reason
