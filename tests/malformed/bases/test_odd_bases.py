"""Sound .onnx bases that an export could be led astray by: names that it uses itself, other types than float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from eptx import Session
from tests.malformed.bases.test_base import graph, node
from tests.malformed.scene import MODE, Cli, Scene

IDS = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])


def rename(model: onnx.ModelProto, old: str, new: str) -> None:
    """Another name for a value of the graph's inside."""
    for tensor in model.graph.initializer:
        tensor.name = new if tensor.name == old else tensor.name
    for n in model.graph.node:
        n.input[:] = [new if name == old else name for name in n.input]
        n.output[:] = [new if name == old else name for name in n.output]


def run(scene: Scene, task: str) -> dict[str, np.ndarray]:
    outputs = Session(scene.out / "b", threads=1).run({"input_ids": IDS}, task)
    return {name: np.asarray(outputs[name]) for name in outputs}


#: What eptx and the libraries under it call the values that an export adds.
NAMES = [
    "val_0",
    "eptx_0",
    "eptx_3",
    "layer.0.query.output",
    "layer.0.query.lora_A",
    "layer.0.query.task_experts",
    "layer.0.dense.base_output",
    "task_head.weight",
    "task_head.axis",
    "task_id",
    "task_id_used",
    "task_id.zero",
    "logits",
]


@pytest.mark.parametrize("value", ["words", "r"])  # an initializer, and what a node computes
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_the_export_uses(scene: Scene, cli: Cli, name: str, value: str) -> None:
    settings = "--mode dynamic --top-k 2"
    assert cli(*scene.export_args("ept", settings, base=False)).code == 0
    wanted = run(scene, "mnli")
    graph(lambda m: rename(m, value, name))(scene)
    assert cli(*scene.export_args("ept", settings, base=False)).code == 0
    for key, array in run(scene, "mnli").items():
        np.testing.assert_array_equal(array, wanted[key])


def _cast(model: onnx.ModelProto, kind: Any, dtype: int) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(kind), tensor.name))
    for value in model.graph.output:
        value.type.tensor_type.elem_type = dtype


def half(model: onnx.ModelProto) -> None:
    _cast(model, np.float16, TensorProto.FLOAT16)


def double(model: onnx.ModelProto) -> None:
    _cast(model, np.float64, TensorProto.DOUBLE)


def half_inside(model: onnx.ModelProto) -> None:
    """Computes in float16 between float32 inputs and outputs, as converters leave it."""
    half(model)
    rename(model, "last_hidden_state", "h")
    model.graph.node.insert(5, helper.make_node("Cast", ["h"], ["last_hidden_state"], to=1))
    node(model, "Gather")
    model.graph.node[-1].input[0] = "last_hidden_state"
    for value in model.graph.output:
        value.type.tensor_type.elem_type = TensorProto.FLOAT


@pytest.mark.parametrize("change", [half, double, half_inside])
@pytest.mark.parametrize("adapter", MODE)
def test_another_type(scene: Scene, cli: Cli, adapter: str, change: Callable[[onnx.ModelProto], None]) -> None:
    graph(change)(scene)
    cli.refuses(5, "float32 base", *scene.export_args(adapter, base=False))
    assert list(scene.out.iterdir()) == []


@pytest.mark.parametrize("change", [half, double, half_inside])
def test_another_type_static(scene: Scene, cli: Cli, change: Callable[[onnx.ModelProto], None]) -> None:
    assert cli(*scene.export_args("lora", "--mode static", base=False)).code == 0
    wanted = run(scene, "task0")
    graph(change)(scene)
    assert cli(*scene.export_args("lora", "--mode static", base=False)).code == 0
    for key, array in run(scene, "task0").items():
        np.testing.assert_allclose(array.astype(np.float64), wanted[key], rtol=0.02, atol=0.1)
