"""A graph that computes in float16 still has right positions, norms, masks and routers: numbers by numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx.numpy_helper
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest

from eptx.errors import LimitError
from eptx.exporter.graph.fp16.compute import compute_fp16

RNG = np.random.default_rng(3)
W = RNG.normal(size=(4, 96)).astype(np.float32)
#: A float16 counts to 2048.
IDS = np.array([0, 1, 2049, 3001])
#: The squares of what they give are past 65504.
X = (200 * RNG.normal(size=(4, 4))).astype(np.float32)
LOWEST = float(np.finfo(np.float32).min)


def _half(body: str, *outputs: str, wide: Callable[[ir.Node], bool] = lambda node: False) -> ir.Model:
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
    g (float[n, 4] x, int64[n] ids) => ({", ".join(outputs)})
    <float two = {{2.0}}, float tiny = {{1e-12}}, float lowest = {{{LOWEST}}}, float zero = {{0.0}},
     float freq = {{0.37}}, int64 nought = {{0}}, int64[1] last = {{-1}}, float[4, 96] w>
    {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(W, "w"))
    model = ir.from_proto(proto)
    compute_fp16(model, (), [node for node in model.graph if wide(node)])
    return model


def _run(model: ir.Model) -> list[np.ndarray]:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    return session.run(None, {"x": X, "ids": IDS})  # type: ignore[no-any-return]


def _types(model: ir.Model, op_type: str) -> set[str]:
    return {str(v.dtype) for node in model.graph if node.op_type == op_type for v in node.inputs if v is not None}


def test_products_are_float16_and_norms_are_not() -> None:
    model = _half(
        "h = MatMul (x, w) s = Pow (h, two) m = ReduceMean (s, last) e = Add (m, tiny) r = Sqrt (e) y = Div (h, r)",
        "float[n, 96] y",
    )
    assert _types(model, "MatMul") == {"FLOAT16"}
    assert "FLOAT16" not in _types(model, "Pow") | _types(model, "Sqrt")
    assert [value.dtype for value in model.graph.outputs] == [ir.DataType.FLOAT]
    h = X.astype(np.float64) @ W
    (found,) = _run(model)
    np.testing.assert_allclose(found, h / np.sqrt((h * h).mean(-1, keepdims=True)), atol=5e-3)


def test_positions_are_exact() -> None:
    model = _half("p = Cast <to = 1> (ids) a = Mul (p, freq) y = Cos (a)", "float[n] y")
    (found,) = _run(model)
    np.testing.assert_allclose(found, np.cos(IDS * 0.37), atol=1e-3)


def test_masks_stay_finite() -> None:
    body = """h = MatMul (x, w) k = Greater (ids, nought) f = Where (k, zero, lowest) c = Unsqueeze (f, last)
    t = Tanh (h) a = Add (t, c) y = Softmax <axis = -1> (a)"""
    (found,) = _run(_half(body, "float[n, 96] y"))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(-1), 1, atol=2e-3)


def test_what_is_constant_is_made_in_float32() -> None:
    """ONNX Runtime folds it: the product of constants is none of the graph's that runs."""
    body = "h = MatMul (x, w) t = Transpose (w) g = MatMul (w, t) k = MatMul (h, t) y = MatMul (k, g)"
    model = _half(body, "float[n, 4] y")
    folded = next(node for node in model.graph if node.outputs[0].name == "g")
    assert all(value is not None and value.dtype != ir.DataType.FLOAT16 for value in folded.inputs)


def test_nodes_may_stay_wide() -> None:
    model = _half("y = MatMul (x, w)", "float[n, 96] y", wide=lambda node: node.op_type == "MatMul")
    assert _types(model, "MatMul") == {"FLOAT"}


def test_a_weight_that_float16_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.W", W * 1e5)
    with pytest.raises(LimitError, match=r"w has a value of .*, past float16's 65504: use --precision fp32"):
        _half("y = MatMul (x, w)", "float[n, 96] y")
