"""Raising a graph to opset 18, the oldest in which eptx's functions mean what they say.

ONNX Runtime reads an inlined function's operators at the model's opset. From 13 to 18 the operators of
exported models only gained optional inputs and types, but for the two here (https://onnx.ai/onnx/operators).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eptx.exporter.bases.initializers import add_initializer

OPSET = 18

_REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
)


def raise_opset(model: ir.Model) -> None:
    """Raises a model of opset 13 to 17 in place; a newer one is left alone."""
    if model.opset_imports.get("", OPSET) >= OPSET:
        return
    for node in model.graph.all_nodes():
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type in _REDUCTIONS and "axes" in node.attributes:
            _axes_as_input(model.graph, node)
        elif node.op_type == "Split" and len(node.inputs) < 2:
            node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))
    model.opset_imports[""] = OPSET
    for graph in model.graphs():
        graph.opset_imports[""] = OPSET


def _axes_as_input(graph: ir.Graph, node: ir.Node) -> None:
    """Opset 18 takes the axes of a reduction as an input, not as an attribute."""
    axes = np.array(node.attributes.pop("axes").as_ints(), np.int64)
    name = f"reduction_axes_{'_'.join(str(axis) for axis in axes)}"
    value = graph.initializers.get(name)
    if value is None:
        value = add_initializer(graph, name, axes)
    node.resize_inputs(2)
    node.replace_input_with(1, value)
