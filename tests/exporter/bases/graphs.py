"""Graphs of a few products, made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir


def initializer(name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.Tensor(np.ascontiguousarray(array), name=name)
    return ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))


def activation(name: str, width: int, *, rows: Sequence[str | int] = ("batch", "length")) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([*rows, width]))


def model(inputs: Sequence[ir.Value], nodes: Sequence[ir.Node], opset: int = 20) -> ir.Model:
    """The nodes in order; what nobody reads is an output, what nobody computes an initializer."""
    read = [value for node in nodes for value in node.inputs if value is not None]
    weights = list(dict.fromkeys(v for v in read if v.producer() is None and v not in inputs))
    outputs = [value for node in nodes for value in node.outputs if value not in read]
    for index, value in enumerate(outputs):
        value.name = f"y{index}"
        value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
    imports = {"": opset, "com.microsoft": 1}
    graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=weights, opset_imports=imports, name="g")
    return ir.Model(graph, ir_version=10)


def run(graph: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    data = ir.to_proto(graph).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))
