"""One linear as a graph, alone or packed with others, with an adapter attached: operators without a model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.bases import Site
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.methods.method import method_of

DOUBLE = ir.DataType.DOUBLE


class DoubleEditor(GraphEditor):
    """Keeps float64, so that algebra can be compared to 1e-10."""

    def constant(self, name: str, array: np.ndarray, *, exact: bool = False) -> ir.Value:
        value = super().constant(name, array, exact=exact)
        if array.dtype.kind == "f":
            tensor = ir.Tensor(np.ascontiguousarray(array.astype(np.float64)), name=name)
            value.const_value, value.type = tensor, ir.TensorType(DOUBLE)
        return value


def attached(
    adapter: Adapter,
    weight: np.ndarray,
    x_shape: tuple[int, ...],
    plan: GraphSettings,
    *,
    before: int = 0,
    after: int = 0,
    opset: int = 20,
) -> ir.Model:
    """``y = x W^T`` with the adapter attached at module "linear"; inputs "x" and, where the mode needs it, "task_id".

    Args:
        adapter: of one module, "linear".
        weight: [out, in] float64.
        x_shape: of the input; the first axis is free.
        plan: how to attach.
        before, after: columns that are packed beside the module's own.
        opset: of the graph.
    """
    packed = packed_weight(weight, before, after)
    x = ir.Value(name="x", type=ir.TensorType(DOUBLE), shape=ir.Shape(["batch", *x_shape[1:]]))
    tensor = ir.Tensor(packed, name="w")
    w = ir.Value(name="w", type=ir.TensorType(DOUBLE), shape=ir.Shape(packed.shape), const_value=tensor)
    node = ir.node("MatMul", [x, w])
    y = node.outputs[0]
    y.name, y.type = "y", ir.TensorType(DOUBLE)
    y.shape = ir.Shape(["batch", *x_shape[1:-1], packed.shape[1]])
    graph = ir.Graph([x], [y], nodes=[node], initializers=[w], opset_imports={"": opset}, name="linear")
    model = ir.Model(graph, ir_version=10)
    editor = DoubleEditor(model)
    site = Site("linear", node, (before, before + weight.shape[0]))
    method_of(adapter.method).attach(adapter, editor, {"linear": site}, plan)
    editor.finish()
    return model


def packed_weight(weight: np.ndarray, before: int, after: int) -> np.ndarray:
    """The linear's weight, [in, ...], between other modules' columns."""
    rng = np.random.default_rng(1)
    inner = weight.shape[1]
    return np.concatenate([rng.normal(size=(inner, before)), weight.T, rng.normal(size=(inner, after))], axis=1)


def adapted(
    adapter: Adapter,
    weight: np.ndarray,
    feeds: Mapping[str, np.ndarray],
    plan: GraphSettings,
    *,
    before: int = 0,
    after: int = 0,
    optimize: bool = True,
    opset: int = 20,
) -> np.ndarray:
    """The adapted linear's output; the columns packed beside it must come out unchanged."""
    out = weight.shape[0]
    model = attached(adapter, weight, feeds["x"].shape, plan, before=before, after=after, opset=opset)
    result = run(model, feeds, optimize=optimize)
    packed = packed_weight(weight, before, after)
    np.testing.assert_allclose(result[..., :before], feeds["x"] @ packed[:, :before], atol=1e-10)
    np.testing.assert_allclose(result[..., before + out :], feeds["x"] @ packed[:, before + out :], atol=1e-10)
    return result[..., before : before + out]


def run(model: ir.Model, feeds: Mapping[str, np.ndarray], *, optimize: bool = True) -> np.ndarray:
    """The first output of a model on ONNX Runtime's CPU provider."""
    return run_all(model, feeds, optimize=optimize)[0]


def run_all(model: ir.Model, feeds: Mapping[str, np.ndarray], *, optimize: bool = True) -> list[np.ndarray]:
    """All of them."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    return session.run(None, {name: array for name, array in feeds.items() if name in wanted})  # type: ignore[no-any-return]
