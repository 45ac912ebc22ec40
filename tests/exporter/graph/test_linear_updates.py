"""The tasks' updates of a linear in a graph, and one folded: y = gain * (W (input_gain * x) + B A x) + bias + shift."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from eptx.errors import NotSupportedError
from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.updates import attach_updates

ROWS, LENGTH, IN, OUT = 4, 3, 5, 6
RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.normal(size=(OUT, IN)), RNG.normal(size=OUT)
X = RNG.normal(size=(ROWS, LENGTH, IN)).astype(np.float32)
FACTORS = {"a": RNG.normal(size=(2, IN)), "b": RNG.normal(size=(OUT, 2))}
GAIN, SHIFT, INPUT_GAIN = RNG.normal(size=OUT), RNG.normal(size=OUT), RNG.normal(size=IN)
#: Of three tasks.
UPDATES = {
    "factors": [LinearUpdate(**FACTORS), None, LinearUpdate(RNG.normal(size=(3, IN)), RNG.normal(size=(OUT, 3)))],
    "gain": [LinearUpdate(**FACTORS), LinearUpdate(**FACTORS, gain=GAIN), None],
    "shift": [LinearUpdate(**FACTORS, shift=SHIFT), LinearUpdate(shift=-SHIFT), None],
    "gain without factors": [LinearUpdate(gain=GAIN), None, LinearUpdate(gain=-GAIN)],
    "input gain": [LinearUpdate(input_gain=INPUT_GAIN), LinearUpdate(**FACTORS), None],
    "all": [LinearUpdate(**FACTORS, gain=GAIN, shift=SHIFT, input_gain=INPUT_GAIN), None, LinearUpdate(gain=GAIN)],
}
TASKS = np.array([1, 3, 0, 2])  # mixed, and a row of base


def expected(update: LinearUpdate | None, x: np.ndarray, columns: slice = slice(None)) -> np.ndarray:
    """What a row gives, by the definition."""
    y = x @ WEIGHT.T
    if update is not None:
        own = x if update.input_gain is None else x * update.input_gain
        y = own @ WEIGHT.T
        if update.a is not None and update.b is not None:
            y = y + x @ update.a.T @ update.b.T
        y = y if update.gain is None else y * update.gain
        y = y if update.shift is None else y + update.shift
    return y + BIAS


def model(kind: str) -> tuple[ir.Model, Site]:
    """A graph of one linear: "matmul" with an Add, "gemm" on flattened rows, "packed" with two columns before it."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", "length", IN]))
    before = np.ones((2, IN)) if kind == "packed" else np.zeros((0, IN))
    weight = np.concatenate([before, WEIGHT])
    bias = np.concatenate([np.zeros(len(before)), BIAS])

    def constant(name: str, array: np.ndarray) -> ir.Value:
        tensor = ir.Tensor(np.ascontiguousarray(array), name=name)
        return ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))

    w, b = constant("w", weight.astype(np.float32)), constant("b", bias.astype(np.float32))
    flat = constant("flat", np.array([-1, IN]))
    initializers, out = [w, b], ir.Shape(["batch", "length", len(weight)])
    if kind == "gemm":
        rows = ir.node("Reshape", [x, flat])
        product = ir.node("Gemm", [rows.outputs[0], w, b], attributes={"transB": 1})
        product.outputs[0].shape = ir.Shape(["batch*length", len(weight)])
        shape = ir.node("Shape", [x], attributes={"start": 0, "end": 2})
        width = constant("width", np.array([len(weight)]))
        wanted = ir.node("Concat", [shape.outputs[0], width], attributes={"axis": 0})
        last = ir.node("Reshape", [product.outputs[0], wanted.outputs[0]])
        nodes, initializers = [rows, product, shape, wanted, last], [w, b, flat, width]
    else:
        turned = ir.node("Transpose", [w], attributes={"perm": [1, 0]})
        product = ir.node("MatMul", [x, turned.outputs[0]])
        product.outputs[0].shape = out
        last = ir.node("Add", [product.outputs[0], b])
        nodes = [turned, product, last]
    for index, node in enumerate(nodes):
        node.outputs[0].name = f"v{index}"
    product.outputs[0].type = last.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    last.outputs[0].name, last.outputs[0].shape = "y", out
    graph = ir.Graph([x], [last.outputs[0]], nodes=nodes, initializers=initializers, opset_imports={"": 20}, name="g")
    return ir.Model(graph, ir_version=10), Site("linear", product, (len(before), len(weight)))


def run(made: ir.Model, **more: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(ir.to_proto(made).SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": X, **more})[0])


@pytest.mark.parametrize("kind", ["matmul", "gemm", "packed"])
@pytest.mark.parametrize("name", UPDATES)
def test_every_row_reads_its_tasks_update(name: str, kind: str) -> None:
    made, site = model(kind)
    editor = GraphEditor(made)
    if kind == "packed" and any(update is not None and update.input_gain is not None for update in UPDATES[name]):
        with pytest.raises(NotSupportedError, match=r"linear: a task scales its input.*use --mode static"):
            attach_updates(editor, site, UPDATES[name], ("a", "b"))
        return
    attach_updates(editor, site, UPDATES[name], ("a", "b"))
    editor.finish()
    y = run(made, task_id=TASKS)
    for row, task in enumerate(TASKS):
        want = expected([*UPDATES[name], None][task], X[row])
        assert np.abs(y[row, :, site.columns[0] :] - want).max() < 1e-5
        if kind == "packed":  # what is beside the module stays
            assert np.abs(y[row, :, :2] - X[row].sum(-1)[:, None]).max() < 1e-5


def test_a_module_without_vectors_has_no_further_nodes() -> None:
    made, site = model("matmul")
    editor = GraphEditor(made)
    attach_updates(editor, site, UPDATES["factors"], ("a", "b"))
    editor.finish()
    # the bias is the operator's
    assert [node.op_type for node in made.graph] == ["Transpose", "MatMul", "BiasedLowRankDelta"]


@pytest.mark.parametrize("kind", ["matmul", "gemm", "packed"])
@pytest.mark.parametrize("name", UPDATES)
def test_folded(name: str, kind: str) -> None:
    for update in UPDATES[name]:
        made, site = model(kind)
        editor = GraphEditor(made)
        if update is not None:
            site.set_weight(update.fold(site.weight_array().astype(np.float64)))
            if update.shift is not None:
                editor.shift(site, update.shift)
        editor.finish()
        y = run(made)[:, :, site.columns[0] :]
        assert np.abs(y - expected(update, X.astype(np.float64))).max() < 1e-5


def test_both_factors_or_none() -> None:
    with pytest.raises(ValueError, match="both factors"):
        LinearUpdate(a=FACTORS["a"])
