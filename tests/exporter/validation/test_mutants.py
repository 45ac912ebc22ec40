"""Bundles of a slightly wrong adapter fail, and the report names the task and the first module that drifts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eptx.exporter import Route, read_adapter
from eptx.exporter.methods.ept.fold import route
from eptx.runtime.validation.distance import LIMIT
from tests.exporter.validation.adapters import (
    HEADS,
    Tensors,
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
from tests.exporter.validation.workshop import Workshop, drift, failed_tasks, task

LABELS = {"cola": 2, "mnli": 3, "stsb": 1}
MODES = ("static", "conditioned", "dynamic")


@pytest.fixture(scope="module")
def ept(headless_bert: Workshop) -> Path:
    """Three tasks with heads."""
    return add_heads(write_ept(headless_bert.path(), shapes(headless_bert), seed=5), LABELS, 48)


def shapes(workshop: Workshop) -> dict[str, tuple[int, int]]:
    found = linear_shapes(workshop.base, ("query", "key", "value", "dense"))
    return {name: shape for name, shape in found.items() if "pooler" not in name}


def middle_query(workshop: Workshop) -> str:
    """A module with adapted ones before and behind it."""
    return next(name for name in shapes(workshop) if name.endswith("layer.1.attention.self.query"))


def experts(adapter: Path, module: str, index: int) -> list[int]:
    """The experts that a task uses there, the first one first."""
    read = read_adapter([adapter], top_k=2)
    return route(read.modules[module], index, 2)[0].tolist()  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", MODES)
def test_a_kernel_scaled_by_a_hundredth(headless_bert: Workshop, ept: Path, mode: str) -> None:
    module = middle_query(headless_bert)
    expert = experts(ept, module, 0)[1]
    mutant = changed(ept, headless_bert.path(), scale_kernel(module, expert))
    report = headless_bert.verdict(ept, mutant, mode=mode, top_k=2, task="cola" if mode == "static" else None)
    using = {name for i, name in enumerate(LABELS) if expert in experts(ept, module, i)}
    assert "cola" in failed_tasks(report)
    assert failed_tasks(report) - {"auto"} <= using
    assert not report.passed
    assert f"task cola fails at first drifting module {module}: " in report.reason
    assert drift(report, "cola", module) > 100 * LIMIT


@pytest.mark.parametrize("mode", ["conditioned", "dynamic"])
def test_two_tasks_swapped_in_one_module(headless_bert: Workshop, ept: Path, mode: str) -> None:
    module = middle_query(headless_bert)
    report = headless_bert.verdict(
        ept, changed(ept, headless_bert.path(), swap_tasks(module, 0, 2)), mode=mode, top_k=2
    )
    assert failed_tasks(report) - {"auto"} == {"cola", "stsb"}
    assert task(report, "cola").failed_at == task(report, "stsb").failed_at == module
    assert "its router chooses experts" in report.reason


@pytest.mark.parametrize("mode", MODES)
def test_a_gate_bias_that_changes_the_second_expert(headless_bert: Workshop, ept: Path, mode: str) -> None:
    module = middle_query(headless_bert)
    weights = read_adapter([ept], top_k=2).modules[module]  # type: ignore[attr-defined]
    gate = weights.gate_weight @ weights.task_embedding[0] + weights.gate_bias
    _, second, third = np.argsort(-gate)[:3]
    raised = raise_gate(module, int(third), float(gate[second] - gate[third]) + 1e-3)
    mutant = changed(ept, headless_bert.path(), raised)
    report = headless_bert.verdict(ept, mutant, mode=mode, top_k=2, task="cola" if mode == "static" else None)
    assert task(report, "cola").failed_at == module
    if mode != "static":
        wanted = " and ".join(map(str, sorted(experts(ept, module, 0))))
        assert f"the reference chooses {wanted}" in str(task(report, "cola").reason)


@pytest.mark.parametrize("mode", MODES)
def test_the_scale_doubled(headless_bert: Workshop, ept: Path, mode: str) -> None:
    mutant = set_config(ept, headless_bert.path(), lora_alpha=16)
    report = headless_bert.verdict(ept, mutant, mode=mode, top_k=2, task="mnli" if mode == "static" else None)
    assert failed_tasks(report) >= ({"mnli"} if mode == "static" else set(LABELS))
    assert task(report, "mnli").failed_at == "bert.encoder.layer.0.attention.self.query"


def drop_kernels(tensors: Tensors) -> None:
    for name in tensors:
        if "lora_expert_kernels" in name:
            tensors[name] = np.zeros_like(tensors[name])


def drop_lora(tensors: Tensors) -> None:
    for name in tensors:
        if "lora_B" in name:
            tensors[name] = np.zeros_like(tensors[name])


@pytest.mark.parametrize("mode", MODES)
def test_the_adapter_dropped(headless_bert: Workshop, ept: Path, mode: str) -> None:
    mutant = changed(ept, headless_bert.path(), drop_kernels)
    report = headless_bert.verdict(ept, mutant, mode=mode, top_k=2, task="stsb" if mode == "static" else None)
    found = task(report, "stsb")
    assert found.failed_at == "bert.encoder.layer.0.attention.self.query"
    # what is missing is the adapter's effect, and nothing else
    measured = found.modules[found.failed_at]
    assert measured.effect is not None
    assert measured.error == pytest.approx(measured.effect, rel=0.5)


def test_an_adapter_without_effect_proves_nothing(headless_bert: Workshop, ept: Path) -> None:
    nothing = changed(ept, headless_bert.path(), drop_kernels)
    report = headless_bert.verdict(nothing, nothing, mode="conditioned", top_k=2)
    assert not report.passed
    assert failed_tasks(report) == set()
    assert "task cola cannot be validated: the adapter's own effect is 0 noise floors" in report.reason


@pytest.mark.parametrize("mode", ["static", "conditioned"])
def test_a_square_lora_factor_transposed(bert: Workshop, mode: str) -> None:
    found = shapes(bert)
    module = next(name for name in found if name.endswith("layer.1.attention.output.dense"))
    original = [write_lora(bert.path(), found, seed=seed, rank=48) for seed in (1, 2)]
    mutant = [original[0], changed(original[1], bert.path(), transpose(f"{module}.lora_A.weight"))]
    if mode == "static":
        report = bert.verdict(original[1:], mutant[1:], mode=mode)
        assert failed_tasks(report) == {"task0"}
    else:
        report = bert.verdict(original, mutant, mode=mode, tasks=["a", "b"])
        assert failed_tasks(report) == {"b"}
    assert f"first drifting module {module}" in report.reason


@pytest.mark.parametrize("routing", ["batch", "row"])
def test_tucka_centroids_permuted(bert: Workshop, routing: str) -> None:
    found = shapes(bert)
    original = write_tucka(bert.path(), found, seed=6)
    mutant = changed(original, bert.path(), permute_centroids(router_of(found)))
    report = bert.verdict(original, mutant, mode="dynamic", routing=routing)
    assert failed_tasks(report) == {"task0"}
    assert task(report, "task0").failed_at == router_of(found)
    assert "its route is group" in report.reason


def test_tucka_tasks_swapped(bert: Workshop) -> None:
    original = write_tucka(bert.path(), shapes(bert), seed=6, tasks=("x", "y"))
    routes = {"x": Route(0, (0.6, 0.4)), "y": Route(2, (0.3, 0.7))}
    bundle = bert.export(original, mode="conditioned", routes=routes)
    other = bert.export(original, mode="conditioned", routes={"x": routes["y"], "y": routes["x"]})
    for name in ("model.onnx", "model.onnx.data"):
        (other.path / name).write_bytes((bundle.path / name).read_bytes())
    manifest = other.path / "eptx.json"
    files = bundle.manifest.to_json()["files"]
    from eptx.errors import BundleError
    from eptx.files.strict_json import dump_json, read_json_object

    manifest.write_bytes(dump_json(read_json_object(manifest, error=BundleError) | {"files": files}))
    report = bert.validate(other, original)
    assert failed_tasks(report) == {"x", "y"}
    assert "its route is group 0; the reference's is group 2" in report.reason


@pytest.mark.parametrize("mode", MODES)
def test_two_rows_of_a_head_swapped(headless_bert: Workshop, ept: Path, mode: str) -> None:
    mutant = changed(ept, headless_bert.path(), swap_head_rows("mnli"), HEADS)
    report = headless_bert.verdict(ept, mutant, mode=mode, top_k=2, task="mnli" if mode == "static" else None)
    assert failed_tasks(report) == {"mnli"}
    assert "task mnli fails at task_heads: " in report.reason


def shift_a_bias(tensors: Tensors) -> None:
    tensors["cola.bias"] = tensors["cola.bias"] + np.float32(1e-4)


@pytest.mark.parametrize("change", [shift_a_bias], ids=["bias"])
def test_a_head_slightly_off(headless_bert: Workshop, ept: Path, change: Callable[[Tensors], None]) -> None:
    mutant = changed(ept, headless_bert.path(), change, HEADS)
    report = headless_bert.verdict(ept, mutant, mode="conditioned", top_k=2)
    assert failed_tasks(report) == {"cola"}
    assert task(report, "cola").failed_at == "task_heads"
