"""The acceptance list on real weights: all-MiniLM-L6-v2 passes, and every mutant fails where it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from eptx.exporter import read_adapter
from eptx.exporter.methods.ept.fold import route
from eptx.runtime.validation.distance import LIMIT
from tests.exporter.validation.adapters import (
    HEADS,
    add_heads,
    changed,
    linear_shapes,
    permute_centroids,
    raise_gate,
    router_of,
    scale_kernel,
    set_config,
    swap_head_rows,
    swap_tasks,
    transpose,
    write_ept,
    write_lora,
    write_tucka,
)
from tests.exporter.validation.test_mutants import drop_kernels
from tests.exporter.validation.workshop import Workshop, drift, failed_tasks, task, worst
from tests.support.minilm import minilm

FIRST, MIDDLE = "encoder.layer.0.attention.self.query", "encoder.layer.3.attention.self.value"
SQUARE = "encoder.layer.2.attention.output.dense"
EPT = {"mode": "conditioned", "top_k": 2}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    torch.set_num_threads(1)
    return Workshop(minilm(), tmp_path_factory.mktemp("minilm"), headless=True)


def shapes(workshop: Workshop) -> dict[str, tuple[int, int]]:
    found = linear_shapes(workshop.base, ("query", "key", "value", "dense"))
    return {name: shape for name, shape in found.items() if "pooler" not in name}


@pytest.fixture(scope="module")
def ept(workshop: Workshop) -> Path:
    """An adapter that changes a module's output by a few percent."""
    return add_heads(write_ept(workshop.path(), shapes(workshop), seed=5, tasks=2), {"sst2": 2, "mnli": 3}, 384)


@pytest.fixture(scope="module")
def lora(workshop: Workshop) -> Path:
    return write_lora(workshop.path(), shapes(workshop), seed=7, rank=384)


@pytest.fixture(scope="module")
def tucka(workshop: Workshop) -> Path:
    return write_tucka(workshop.path(), shapes(workshop), seed=6)


def test_the_honest_bundles_pass(workshop: Workshop, ept: Path, lora: Path, tucka: Path) -> None:
    for adapter, options in ((ept, EPT), (lora, {"mode": "static"}), (tucka, {"mode": "dynamic"})):
        report = workshop.validate(workshop.export(adapter, **options))
        assert report.passed, report.reason
        assert worst(report) < LIMIT / 4


def test_a_kernel_scaled_by_a_hundredth(workshop: Workshop, ept: Path) -> None:
    expert = int(route(read_adapter([ept], top_k=2).modules[MIDDLE], 0, 2)[0][1])  # type: ignore[attr-defined]
    report = workshop.verdict(ept, changed(ept, workshop.path(), scale_kernel(MIDDLE, expert)), **EPT)
    assert f"task sst2 fails at first drifting module {MIDDLE}: " in report.reason
    assert drift(report, "sst2", MIDDLE) > 10 * LIMIT


def test_two_tasks_swapped_in_one_module(workshop: Workshop, ept: Path) -> None:
    report = workshop.verdict(ept, changed(ept, workshop.path(), swap_tasks(MIDDLE, 0, 1)), **EPT)
    assert failed_tasks(report) == {"sst2", "mnli"}
    assert task(report, "mnli").failed_at == MIDDLE


def test_a_gate_bias_that_changes_the_second_expert(workshop: Workshop, ept: Path) -> None:
    weights = read_adapter([ept], top_k=2).modules[MIDDLE]  # type: ignore[attr-defined]
    gate = weights.gate_weight @ weights.task_embedding[0] + weights.gate_bias
    _, second, third = np.argsort(-gate)[:3]
    raised = raise_gate(MIDDLE, int(third), float(gate[second] - gate[third]) + 1e-3)
    report = workshop.verdict(ept, changed(ept, workshop.path(), raised), **EPT)
    assert task(report, "sst2").failed_at == MIDDLE
    assert "its router chooses experts" in report.reason


def test_the_scale_doubled(workshop: Workshop, ept: Path) -> None:
    report = workshop.verdict(ept, set_config(ept, workshop.path(), lora_alpha=16), **EPT)
    assert failed_tasks(report) == {"sst2", "mnli"}
    assert task(report, "sst2").failed_at == FIRST


def test_the_adapter_dropped(workshop: Workshop, ept: Path) -> None:
    report = workshop.verdict(ept, changed(ept, workshop.path(), drop_kernels), **EPT)
    assert failed_tasks(report) == {"sst2", "mnli"}
    assert task(report, "sst2").failed_at == FIRST


def test_a_square_lora_factor_transposed(workshop: Workshop, lora: Path) -> None:
    mutant = changed(lora, workshop.path(), transpose(f"{SQUARE}.lora_A.weight"))
    report = workshop.verdict(lora, mutant, mode="static")
    assert task(report, "task0").failed_at == SQUARE


def test_tucka_centroids_permuted(workshop: Workshop, tucka: Path) -> None:
    mutant = changed(tucka, workshop.path(), permute_centroids(router_of(shapes(workshop))))
    report = workshop.verdict(tucka, mutant, mode="dynamic")
    assert task(report, "task0").failed_at == FIRST
    assert "its route is group" in report.reason


def test_two_rows_of_a_head_swapped(workshop: Workshop, ept: Path) -> None:
    report = workshop.verdict(ept, changed(ept, workshop.path(), swap_head_rows("mnli"), HEADS), **EPT)
    assert failed_tasks(report) == {"mnli"}
    assert task(report, "mnli").failed_at == "task_heads"
