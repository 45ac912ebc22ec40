"""Replacing one node of a graph by others."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eptx.exporter.bases.initializers import add_initializer
from eptx.exporter.bases.products.products import Product


def replace_node(graph: ir.Graph, node: ir.Node, new: list[ir.Node]) -> None:
    """Replaces a node by others; the last one gives its output."""
    y, output = node.outputs[0], new[-1].outputs[0]
    name = y.name
    ir.convenience.replace_nodes_and_values(graph, node, [node], new, [y], [output])
    output.name, output.type, output.shape = name, y.type, y.shape


def as_matmul(graph: ir.Graph, product: Product) -> ir.Node:
    """The product as a MatMul of x: the bias of a Gemm becomes an Add behind it.

    Returns:
        the MatMul; its weight input is still the old one's.
    """
    node = product.node
    x, y = node.inputs[0], node.outputs[0]
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    if node.op_type == "MatMul":
        return node
    matmul = ir.node("MatMul", [x, node.inputs[1]], name=node.name)
    new = [matmul]
    if bias is not None:
        new.append(ir.node("Add", [matmul.outputs[0], bias], name=f"{node.name}/bias"))
        matmul.outputs[0].name = f"{y.name}.product"
        matmul.outputs[0].type, matmul.outputs[0].shape = y.type, y.shape
    replace_node(graph, node, new)
    return matmul


def splice(graph: ir.Graph, node: ir.Node, quantized: ir.Model) -> None:
    """Replaces a MatMul by a quantized product (x, y); the last of its nodes takes the MatMul's name and output."""
    part = quantized.clone().graph
    x = node.inputs[0]
    assert x is not None
    part.inputs[0].replace_all_uses_with(x)
    for value in list(part.initializers.values()):
        assert value.name is not None and value.const_value is not None
        del part.initializers[value.name]
        value.name = f"{node.name}.{value.name}"
        # a copy of the tensor: the clone shares it with the quantized product, which may be spliced in again
        value.const_value = ir.Tensor(value.const_value.numpy(), name=value.name)
        graph.register_initializer(value)
    last = part.outputs[0].producer()
    assert last is not None
    part.sort()
    nodes = [*(node for node in part if node is not last), last]
    part.outputs.clear()
    part.remove(nodes)
    for new in nodes:
        new.name = node.name if new is last else f"{node.name}/{new.op_type}_{new.name}"
        for value in new.outputs:
            value.name = f"{node.name}.{value.name}"
    replace_node(graph, node, nodes)


def halve(graph: ir.Graph, node: ir.Node, weight: np.ndarray) -> None:
    """Stores the weight [in, out] of a MatMul as float16, cast back in the graph."""
    stored = add_initializer(graph, f"{node.name}.weight_fp16", weight.astype(np.float16))
    cast = ir.node("Cast", [stored], attributes={"to": int(ir.DataType.FLOAT)}, name=f"{node.name}/Cast_weight")
    cast.outputs[0].name = f"{node.name}.weight"
    cast.outputs[0].shape, cast.outputs[0].type = stored.shape, ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(node, cast)
    node.replace_input_with(1, cast.outputs[0])


def drop_unused(graph: ir.Graph) -> None:
    """Removes nodes and weights that nothing reads any more."""
    from onnx_ir.passes import common

    common.RemoveUnusedNodesPass()(ir.Model(graph, ir_version=10))
