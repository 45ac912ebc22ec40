"""Honest bundles pass with room to spare: random adapters of every method, mode and stored type."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eptx.exporter import Route
from eptx.runtime.validation.distance import LIMIT
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept, write_lora, write_tucka
from tests.exporter.validation.workshop import Workshop, worst

ENDS = ("query", "key", "value", "dense", "q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")
ROUTES = {"x": Route(0, (0.6, 0.4)), "y": Route(2, (0.3, 0.7))}
#: what honest bundles stay below, measured over some thousand modules and outputs
MARGIN = LIMIT / 4


def _cases() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(base, method, export options): 32 adapters, each of its own random numbers."""
    for base in ("bert", "llama"):
        for precision in ("fp32", "fp16"):
            yield base, "ept", {"mode": "static", "task": "task1", "top_k": 2, "precision": precision}
            yield base, "ept", {"mode": "conditioned", "top_k": 3, "precision": precision}
            yield base, "ept", {"mode": "dynamic", "top_k": 1, "precision": precision}
            yield base, "tucka", {"mode": "static", "task": "y", "routes": ROUTES, "precision": precision}
            yield base, "tucka", {"mode": "conditioned", "routes": ROUTES, "precision": precision}
            yield base, "tucka", {"mode": "dynamic", "routing": "batch", "precision": precision}
            yield base, "tucka", {"mode": "dynamic", "routing": "row", "precision": precision}
            yield base, "lora", {"mode": "conditioned", "precision": precision}


CASES = list(_cases())


def _name(case: tuple[str, str, dict[str, Any]]) -> str:
    base, method, options = case
    return "-".join([base, method, options["mode"], options.get("routing", ""), options["precision"]])


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda i: _name(CASES[i]))
def test_no_false_alarm(request: pytest.FixtureRequest, index: int) -> None:
    base, method, options = CASES[index]
    workshop: Workshop = request.getfixturevalue(base)
    strength = (0.02, 0.1, 0.5)[index % 3]
    adapters = _adapters(workshop, method, index, strength)
    report = workshop.validate(workshop.export(adapters, **options))
    assert report.passed, report.reason
    assert list(report.warnings) == []
    assert worst(report) < MARGIN
    for task in report.providers[0].tasks:
        assert task.argmax_agreement is not None and task.argmax_agreement > 0.99
        assert task.effect_ratio is None or task.effect_ratio > 10 * LIMIT


def _adapters(workshop: Workshop, method: str, seed: int, strength: float) -> list[Path]:
    found = linear_shapes(workshop.base, ENDS)
    shapes = {name: shape for name, shape in found.items() if "pooler" not in name}
    if method == "ept":
        sizes = ((2, 2, 4, 4, 6, 6, 8, 8), (3, 2, 5, 7))[seed % 2]
        return [write_ept(workshop.path(), shapes, seed=seed, sizes=sizes, strength=strength, use_rslora=seed % 4 == 0)]
    if method == "tucka":
        return [write_tucka(workshop.path(), shapes, seed=seed, tasks=("x", "y"), strength=strength)]
    some = dict(list(shapes.items())[::2])  # tasks may adapt different modules
    first = write_lora(workshop.path(), shapes, seed=seed, strength=strength)
    return [first, write_lora(workshop.path(), some, seed=seed + 100, rank=2, strength=strength)]


@pytest.mark.parametrize("pooling", ["pooler", "first", "mean"])
@pytest.mark.parametrize("mode", ["conditioned", "dynamic"])
def test_no_false_alarm_with_task_heads(headless_bert: Workshop, pooling: str, mode: str) -> None:
    shapes = linear_shapes(headless_bert.base, ("query", "value"))
    adapter = write_ept(headless_bert.path(), shapes, seed=len(pooling), tasks=3)
    add_heads(adapter, {"a": 2, "b": 5, "c": 1}, 48, pooling=pooling)
    report = headless_bert.validate(headless_bert.export(adapter, mode=mode, top_k=2))
    assert report.passed, report.reason
    assert worst(report) < MARGIN
    names = [task.task for task in report.providers[0].tasks]
    assert names == ["a", "b", "c", *(["auto"] if mode == "dynamic" else [])]  # the base alone has no head


@pytest.mark.parametrize("routing", ["batch", "row"])
def test_no_false_alarm_with_heads_behind_a_live_route(headless_bert: Workshop, routing: str) -> None:
    """All rows are run together, and each is read by the head of its own task."""
    shapes = linear_shapes(headless_bert.base, ("query", "value"))
    adapter = write_tucka(headless_bert.path(), shapes, seed=11, tasks=("a", "b"))
    add_heads(adapter, {"a": 2, "b": 3}, 48, pooling="mean")
    report = headless_bert.validate(headless_bert.export(adapter, mode="dynamic", routing=routing))
    assert report.passed, report.reason
    assert worst(report) < MARGIN
    assert [task.task for task in report.providers[0].tasks] == ["a", "b"]


@pytest.mark.parametrize("mode", ["static", "conditioned"])
@pytest.mark.parametrize("base", ["bert", "llama"])
@pytest.mark.parametrize("method", ["ept", "lora", "tucka"])
def test_no_false_alarm_of_large_updates(request: pytest.FixtureRequest, method: str, base: str, mode: str) -> None:
    """What `lora_alpha` 1e6 makes: updates thousands of times as large as what they are added to."""
    workshop: Workshop = request.getfixturevalue(base)
    adapters = _adapters(workshop, method, 5, 3e4)
    options: dict[str, Any] = {"mode": mode} | ({"top_k": 2} if method == "ept" else {})
    options |= {"routes": ROUTES} if method == "tucka" else {}
    tasks = {"ept": "task1", "lora": adapters[0].name, "tucka": "y"}
    options |= {"task": tasks[method]} if mode == "static" else {}
    bundle = workshop.export(adapters, **options)
    report = workshop.validate(bundle)
    assert report.passed, report.reason
    assert worst(report) < MARGIN
    if (base, mode) == ("bert", "conditioned"):
        report = workshop.validate(bundle, _off_by_a_hundredth(workshop, adapters))
        assert not report.passed


def _off_by_a_hundredth(workshop: Workshop, adapters: list[Path]) -> list[Path]:
    """The same adapters, what one module of the first adds 1.01 times as much; TuckA's factors have no size, so all."""
    copy = workshop.path() / adapters[0].name
    shutil.copytree(adapters[0], copy)
    tensors = load_file(copy / "adapter_model.safetensors")
    name = next((name for name in sorted(tensors) if name.endswith(".lora_B.weight")), None)
    if name is None:
        settings = json.loads((copy / "adapter_config.json").read_text())
        (copy / "adapter_config.json").write_text(json.dumps(settings | {"alpha": settings["alpha"] * 1.01}))
        return [copy, *adapters[1:]]
    tensors[name] = tensors[name] * np.float32(1.01)
    save_file(tensors, copy / "adapter_model.safetensors")
    return [copy, *adapters[1:]]
