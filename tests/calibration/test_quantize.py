"""Each scheme's product computes what its definition says, in its place in a graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from eptx.calibration.quantize import Quantizer, Range, Recipe, Scheme
from eptx.calibration.quantize.embedding_table import quantize_rows
from eptx.errors import LimitError
from eptx.runtime.ort.sessions import EXACT_ENTRY

IN, OUT = 128, 24
_RANGE = Range(-1.0, 3.0)


def _value(name: str, *shape: str | int, array: np.ndarray | None = None) -> ir.Value:
    tensor = None if array is None else ir.Tensor(array, name=name)
    dtype = ir.DataType.INT64 if name == "ids" else ir.DataType.FLOAT
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape), const_value=tensor)


def _model(weight: np.ndarray, kind: str = "MatMul") -> ir.Model:
    """``y = relu(x W (+ b))``: the product is in the middle of something."""
    x, stored = _value("x", "n", IN), _value("w", *weight.shape, array=weight)
    initializers = [stored]
    if kind == "MatMul":
        product = ir.node("MatMul", [x, stored], name="/layer/MatMul")
    else:
        bias = _value("b", OUT, array=np.linspace(-1, 1, OUT).astype(np.float32))
        initializers.append(bias)
        product = ir.node("Gemm", [x, stored, bias], {"transB": 1}, name="/layer/Gemm")
    relu = ir.node("Relu", product.outputs, name="relu")
    product.outputs[0].name, relu.outputs[0].name = "h", "y"
    for value in (product.outputs[0], relu.outputs[0]):
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["n", OUT])
    graph = ir.Graph([x], relu.outputs, nodes=[product, relu], initializers=initializers, opset_imports={"": 21})
    graph.opset_imports["com.microsoft"] = 1
    return ir.Model(graph, ir_version=10)


def _run(model: ir.Model, **feeds: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry(*next(iter(EXACT_ENTRY.items())))  # processors without VNNI saturate else
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def _int8(weight: np.ndarray) -> np.ndarray:
    """[in, out] rounded to int8, one scale a column."""
    scale = np.abs(weight).max(0) / 127
    return np.rint(weight / scale) * scale


def _uint8(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rounded to 256 values between low and high, zero among them."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    return (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale


def _blocks(weight: np.ndarray, bits: int, size: int) -> np.ndarray:
    """Rounded in blocks along the input; the value that is largest in size is the end of the range."""
    rows = weight.T.reshape(OUT, -1, min(size, IN))
    most = 2 ** (bits - 1)
    ends = np.take_along_axis(rows, np.abs(rows).argmax(-1, keepdims=True), -1)
    scale = np.where(ends == 0, 1, ends / -most)
    return (np.clip(np.rint(rows / scale), -most, most - 1) * scale).reshape(OUT, IN).T


def _expected(scheme: Scheme, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    if scheme == "int8":
        return _uint8(x, x.min(), x.max()) @ _int8(weight)
    if scheme == "int8-static":
        return _uint8(x, _RANGE.low, _RANGE.high) @ _int8(weight)
    if scheme == "fp16":
        return x @ weight.astype(np.float16).astype(np.float64)
    bits, size = (8, 128) if scheme == "int8-blocks" else (4, 32)
    return x @ _blocks(weight, bits, size)


@pytest.mark.parametrize("kind", ["MatMul", "Gemm"])
@pytest.mark.parametrize("scheme", ["fp16", "int8", "int8-static", "int8-blocks", "int4-blocks"])
def test_a_product_computes_what_its_scheme_says(scheme: Scheme, kind: str) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(5, IN)).astype(np.float32), rng.normal(size=(IN, OUT)).astype(np.float32)
    model = _model(weight if kind == "MatMul" else np.ascontiguousarray(weight.T), kind)
    name = f"/layer/{kind}"
    Quantizer()(model.graph, Recipe({name: scheme}, {}, {name: _RANGE}))
    bias = 0 if kind == "MatMul" else np.linspace(-1, 1, OUT)
    wanted = np.maximum(_expected(scheme, x.astype(np.float64), weight.astype(np.float64)) + bias, 0)
    found = _run(model, x=x)
    # blocks round activations to 8 bits in a way of the kernel's own
    tolerance = 0.02 if scheme.endswith("blocks") else 1e-5
    assert np.abs(found - wanted).max() < tolerance * np.abs(wanted).max()
    assert np.abs(found - np.maximum(x @ weight + bias, 0)).max() > 1e-6  # and not what float32 gives
    stored = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    # float32 weights are gone: what is stored is the scheme's bytes, scales and the bias
    least = {"fp16": 2.0, "int4-blocks": 0.5}.get(scheme, 1.0) * IN * OUT
    assert least <= stored <= least + 3 * 4 * OUT * (IN // 32) + 64


def test_the_names_of_a_product_stay(caplog: pytest.LogCaptureFixture) -> None:
    model = _model(np.ones((IN, OUT), np.float32))
    Quantizer()(model.graph, Recipe({"/layer/MatMul": "int8"}))
    nodes = {node.name: node for node in model.graph}
    assert nodes["/layer/MatMul"].outputs[0].name == "h"
    assert nodes["/layer/MatMul"].op_type == "Mul"


def test_what_a_quantizer_remembers_is_not_changed_by_using_it() -> None:
    rng = np.random.default_rng(1)
    x, weight = rng.normal(size=(3, IN)).astype(np.float32), rng.normal(size=(IN, OUT)).astype(np.float32)
    quantizer = Quantizer()
    answers = []
    for _ in range(3):
        model = _model(weight)
        quantizer(model.graph, Recipe({"/layer/MatMul": "int4-blocks"}))
        answers.append(_run(model, x=x))
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


def test_a_weight_past_float16_is_refused() -> None:
    model = _model(np.full((IN, OUT), 1e5, np.float32))
    with pytest.raises(LimitError, match="/layer/MatMul has a weight past float16"):
        Quantizer()(model.graph, Recipe({"/layer/MatMul": "fp16"}))


@pytest.mark.parametrize("scheme", ["int8", "fp16"])
def test_a_table_gives_its_rows_rounded(scheme: Scheme) -> None:
    rng = np.random.default_rng(2)
    table = (rng.normal(size=(40, 8)) * np.logspace(-3, 1, 40)[:, None]).astype(np.float32)
    table[7] = 0
    gather = ir.node("Gather", [_value("t", 40, 8, array=table), _value("ids", "n")], {"axis": 0}, name="look")
    gather.outputs[0].name = "y"
    gather.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    initializers = [value for value in gather.inputs[:1] if value is not None]
    graph = ir.Graph(
        [gather.inputs[1]],  # type: ignore[list-item]
        gather.outputs,
        nodes=[gather],
        initializers=initializers,
        opset_imports={"": 21},
    )
    model = ir.Model(graph, ir_version=10)
    Quantizer()(graph, Recipe({}, {"look": scheme}))
    found = _run(model, ids=np.arange(40))
    largest = np.abs(table).max(1, keepdims=True)
    assert (np.abs(found - table) <= largest * (0.5 / 127 if scheme == "int8" else 2**-11) * 1.001 + 1e-7).all()
    assert not found[7].any()
    assert "t" not in graph.initializers


def test_rows_use_all_of_their_range() -> None:
    rows, scales = quantize_rows(np.array([[0.5, -2.0], [0.0, 0.0]], np.float32))
    assert rows.tolist() == [[32, -127], [0, 0]]
    assert scales.tolist() == [[pytest.approx(2 / 127)], [1.0]]
