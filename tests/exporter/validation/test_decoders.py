"""Bundles that generate: honest ones pass, whatever their weights are stored in, and each way to be wrong is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from eptx.bundle import Bundle
from eptx.exporter import Route
from eptx.exporter.validation import Report, report_text
from eptx.exporter.validation.inputs.prompts import as_prompts, generated_prompts, redraw_prompts
from eptx.exporter.validation.inputs.vocabulary import Vocabulary
from eptx.manifest.names import AUTO_TASK
from eptx.runtime.validation.batch import CHOSEN, Batch
from eptx.runtime.validation.distance import LIMIT
from eptx.runtime.validation.running.decode_loop import DecodeLoop
from tests.exporter.validation.adapters import (
    Shapes,
    Tensors,
    changed,
    linear_shapes,
    swap_tasks,
    write_ept,
    write_lora,
    write_tucka,
)
from tests.exporter.validation.workshop import Workshop, failed_tasks, names, swap_layers_of_the_cache, task, worst

ENDS = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")
QUERY = "model.layers.1.self_attn.q_proj"
ROUTES = {"x": Route(0, (0.6, 0.4)), "y": Route(2, (0.3, 0.7))}
PADDED = 20
VOCABULARY = Vocabulary(180, 1, 64, 0, 1, None)


@pytest.fixture(scope="module")
def shapes(llama: Workshop) -> Shapes:
    return linear_shapes(llama.base, ENDS)


@pytest.fixture(scope="module")
def ept(llama: Workshop, shapes: Shapes) -> Path:
    return write_ept(llama.path(), shapes, seed=3, tasks=3)


@pytest.fixture(scope="module")
def tucka(llama: Workshop, shapes: Shapes) -> Path:
    return write_tucka(llama.path(), shapes, seed=3, tasks=("x", "y"))


@pytest.fixture(scope="module")
def honest(llama: Workshop, ept: Path) -> Bundle:
    """The bundle that mutants are made of."""
    return llama.export(ept, mode="conditioned", top_k=2)


def batches(bundle: Bundle) -> list[Batch]:
    return generated_prompts(bundle.manifest, VOCABULARY, names(bundle))


def test_every_length_of_the_past_and_every_task(honest: Bundle) -> None:
    found = batches(honest)
    assert {batch.prompt for batch in found} >= {1, 7, 61, PADDED}  # of 64 positions
    assert {batch.rows for batch in found} == {1, 2, 3, 4}
    for name in names(honest):
        padded = {bool(batch.kept.all()) for batch in found if name in batch.tasks and batch.kept is not None}
        assert padded == {True, False}
    assert all(batch.arrays["attention_mask"][0].all() for batch in found)
    assert sum(batch.measures_effect for batch in found) == sum(batch.greedy for batch in found) == 1


def test_another_draw_has_the_same_shape(honest: Bundle) -> None:
    for batch in batches(honest):
        again = redraw_prompts(batch, honest.manifest, VOCABULARY)
        assert again.arrays["input_ids"].shape == batch.arrays["input_ids"].shape
        assert not np.array_equal(again.arrays["input_ids"], batch.arrays["input_ids"])
        assert (again.prompt, again.greedy, again.tasks) == (batch.prompt, batch.greedy, batch.tasks)


@pytest.mark.parametrize(("tasks", "left"), [(("a", "b"), True), (("a", AUTO_TASK), False)])
def test_the_users_texts_are_prompts(honest: Bundle, tasks: tuple[str, ...], left: bool) -> None:
    ids = np.array([[5, 6, 7, 8], [9, 0, 0, 0]])
    given = Batch("data 0", {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}, tasks)
    batch = as_prompts(given, honest.manifest, VOCABULARY)[0]
    short = [0, 0, 0, 9] if left else [9, 0, 0, 0]
    assert batch.arrays["input_ids"][:, :4].tolist() == [[5, 6, 7, 8], short]
    assert (batch.arrays["input_ids"][:, 4:] == CHOSEN).all()
    assert batch.prompt == 4


def test_rows_reach_the_model_padded_on_the_right(honest: Bundle) -> None:
    """And what it gives comes back where the batch has it."""
    ids = np.array([[4, 5, 6, 7, CHOSEN], [0, 0, 8, 9, CHOSEN]])
    names = tuple(task.name for task in honest.manifest.tasks[:2])
    batch = Batch("b", {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}, names, prompt=4, greedy=True)
    fed = []

    def run(feeds: Any) -> dict[str, np.ndarray]:
        fed.append({name: feeds[name].copy() for name in ("input_ids", "attention_mask")})
        logits = np.eye(30)[feeds["input_ids"] + 10]
        past = feeds["past_key_values.0.key"].shape[2]
        present = np.zeros((2, 2, past + feeds["input_ids"].shape[1], 16), np.float32)
        return {"logits": logits, "present.0.key": present}

    calls = DecodeLoop(honest.manifest, batch)
    found = calls.run(run)
    assert fed[0]["input_ids"].tolist() == [[4, 5, 6, 7], [8, 9, 0, 0]]
    assert fed[0]["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert fed[1]["input_ids"].tolist() == [[17], [19]]  # what follows the last real token
    assert fed[1]["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 1]]
    assert calls.answered().arrays["input_ids"].tolist() == [[4, 5, 6, 7, 17], [0, 0, 8, 9, 19]]
    assert calls.joined(found, "logits").argmax(axis=2)[1, 2:].tolist() == [18, 19, 29]


CASES: list[tuple[str, dict[str, Any]]] = [
    ("ept", {"mode": "conditioned", "top_k": 2, "precision": "int4"}),
    ("ept", {"mode": "dynamic", "top_k": 2, "precision": "int4"}),
    ("ept", {"mode": "static", "top_k": 2, "precision": "int4", "task": "task1"}),
    ("tucka", {"mode": "conditioned", "routes": ROUTES, "precision": "int4"}),
    ("tucka", {"mode": "static", "routes": ROUTES, "precision": "int4", "task": "y"}),
    ("tucka", {"mode": "dynamic", "routing": "prompt", "precision": "int4"}),
    ("tucka", {"mode": "dynamic", "routing": "prompt", "precision": "fp32"}),
    ("lora", {"mode": "conditioned", "precision": "int4"}),
]


@pytest.mark.parametrize(
    ("method", "options"), CASES, ids=lambda v: v if isinstance(v, str) else f"{v['mode']}-{v['precision']}"
)
def test_no_false_alarm(
    llama: Workshop, ept: Path, tucka: Path, shapes: Shapes, method: str, options: dict[str, Any]
) -> None:
    lora = [write_lora(llama.path(), shapes, seed=seed) for seed in (1, 2)] if method == "lora" else []
    report = llama.validate(llama.export({"ept": ept, "tucka": tucka}.get(method, lora), **options))
    assert report.passed, report.reason
    assert worst(report) < LIMIT / 2
    for found in report.providers[0].tasks:
        assert found.effect_ratio is None or found.effect_ratio > 2 * LIMIT
        assert found.greedy is not None
        assert found.greedy.agreement > 0.9
        assert (found.rounded is not None) == (options["precision"] == "int4")
    assert "greedy" in report_text(report)


def graph_mutant(llama: Workshop, bundle: Bundle, change: Callable[[ir.Graph], None]) -> Report:
    return llama.validate(llama.edited(bundle, change))


def node_of(graph: ir.Graph, op_type: str, at: int = 0) -> ir.Node:
    return [node for node in graph if op_type in node.op_type][at]


def swap_columns(graph: ir.Graph) -> None:
    """Two features of the second layer's query."""
    value = node_of(graph, "PackedPyramidDelta", 1).inputs[0].producer().inputs[1]  # type: ignore[union-attr]
    assert value is not None and value.const_value is not None
    weight = value.const_value.numpy().copy()
    weight[:, [0, 1]] = weight[:, [1, 0]]
    value.const_value = ir.Tensor(weight, name=value.name)


def leave_out_while_decoding(graph: ir.Graph) -> None:
    """The second layer's adapter is off where a call has one position."""
    node = node_of(graph, "PackedPyramidDelta", 1)
    adapted, base = node.outputs[0], node.inputs[0]
    uses = list(adapted.uses())
    length = ir.node("Shape", [graph.inputs[0]], attributes={"start": 1, "end": 2})
    one = ir.Value(name="one", const_value=ir.Tensor(np.array([1]), name="one"))
    graph.register_initializer(one)
    single = ir.node("Equal", [length.outputs[0], one])
    either = ir.node("Where", [single.outputs[0], base, adapted])
    for index, new in enumerate((length, single, either)):
        new.outputs[0].name = f"mutant_{index}"
    graph.insert_after(node, [length, single, either])
    for user, index in uses:
        user.replace_input_with(index, either.outputs[0])


def forget_padding(graph: ir.Graph) -> None:
    """Every row is as long as the longest."""
    total = next(node for node in graph if node.op_type == "Cast" and "Gather" in (node.name or "")).inputs[0]
    mask = node_of(graph, "ReduceSum")
    assert total is not None
    full = ir.node("Add", [total, ir.node("Mul", [mask.outputs[0], zero(graph)]).outputs[0]])
    product = full.inputs[1].producer()  # type: ignore[union-attr]
    assert product is not None
    product.outputs[0].name, full.outputs[0].name = "mutant_0", "mutant_1"
    users = [use for use in mask.outputs[0].uses() if use[0] is not product]
    gather = total.producer()
    assert gather is not None
    graph.insert_after(gather, [product, full])
    for user, index in users:
        user.replace_input_with(index, full.outputs[0])
    graph.sort()


def zero(graph: ir.Graph) -> ir.Value:
    value = ir.Value(name="zero", const_value=ir.Tensor(np.array([[0]]), name="zero"))
    graph.register_initializer(value)
    return value


def turn_by_one(graph: ir.Graph) -> None:
    """Positions are counted from one behind the first: what is before it does not move with it."""
    for name in ("cos_cache", "sin_cache"):
        value = graph.initializers[name]
        assert value.const_value is not None
        table = value.const_value.numpy().copy()
        table[8:] = np.roll(table, 1, axis=0)[8:]
        value.const_value = ir.Tensor(table, name=name)


@pytest.mark.parametrize(
    ("change", "everyone"),
    [
        (swap_columns, True),
        (leave_out_while_decoding, False),
        (forget_padding, False),
        (swap_layers_of_the_cache, True),
        (turn_by_one, True),
    ],
    ids=["columns", "decoding", "padding", "cache", "positions"],
)
def test_a_graph_that_is_wrong(
    llama: Workshop, honest: Bundle, change: Callable[[ir.Graph], None], everyone: bool
) -> None:
    report = graph_mutant(llama, honest, change)
    assert not report.passed
    names = {found.task for found in report.providers[0].tasks}
    assert failed_tasks(report) == names if everyone else failed_tasks(report)
    assert worst(report) > 100 * LIMIT


def test_two_tasks_swapped(llama: Workshop, ept: Path) -> None:
    mutant = changed(ept, llama.path(), swap_tasks(QUERY, 0, 2))
    report = llama.verdict(ept, mutant, mode="conditioned", top_k=2)
    assert failed_tasks(report) == {"task0", "task2"}
    assert task(report, "task0").failed_at == QUERY


@pytest.mark.parametrize("mode", ["conditioned", "static"])
def test_quantized_weights_that_are_not_the_bases(llama: Workshop, ept: Path, mode: str) -> None:
    """The reference multiplies by what the bundle holds, so it is compared with the base, or what it is folded to."""
    bundle = llama.export(ept, mode=mode, top_k=2, precision="int4", task="task1" if mode == "static" else None)

    def turn_a_row(graph: ir.Graph) -> None:
        value = [node for node in graph if node.op_type == "MatMulNBits"][1].inputs[1]
        assert value is not None and value.const_value is not None
        packed = value.const_value.numpy().copy()
        packed[3] = np.roll(packed[3], 1)
        value.const_value = ir.Tensor(packed, name=value.name)

    report = graph_mutant(llama, bundle, turn_a_row)
    assert not report.passed
    assert "model.layers.0.self_attn.o_proj.weight: its quantized weight: output feature 3, input " in report.reason


def drop(tensors: Tensors) -> None:
    for name in tensors:
        if "lora_B" in name and "layers.1.mlp.up_proj" in name:
            tensors[name] *= 0


def test_a_static_quantized_bundle_without_a_modules_update(llama: Workshop, shapes: Shapes) -> None:
    """Of an update that is smaller than a step some codes tell, those that are close to the next."""
    original = write_ept(llama.path(), shapes, seed=8, tasks=2, strength=0.01)
    mutant = changed(original, llama.path(), drop)
    options: dict[str, Any] = {"mode": "static", "top_k": 2, "precision": "int4", "task": "task1"}
    assert llama.validate(llama.export(original, **options)).passed
    report = llama.verdict(original, mutant, **options)
    assert not report.passed
    assert "model.layers.1.mlp.up_proj.weight: its quantized weight: output feature " in report.reason
