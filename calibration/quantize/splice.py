"""Replacing one node of a graph by others."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eptx.exporter.bases.initializers import add_initializer
from eptx.exporter.bases.products.products import Product

#: How the name of a Gemm's bias goes on, once that is a node of its own.
_BIAS = "/bias"


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
        new.append(ir.node("Add", [matmul.outputs[0], bias], name=f"{node.name}{_BIAS}"))
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


def cut(graph: ir.Graph, name: str) -> ir.Model | None:
    """A copy of what `splice` put in the place of the MatMul of that name; None where there is nothing of it."""
    inside = [node for node in graph if node.name == name or (node.name or "").startswith(f"{name}/")]
    inside = [node for node in inside if node.name != f"{name}{_BIAS}"]
    made = {value for node in inside for value in node.outputs}
    read = dict.fromkeys(v for node in inside for v in node.inputs if v is not None and v not in made)
    stored = [value for value in graph.initializers.values() if value in read]  # in the order that they were added in
    if not inside or inside[-1].name != name or len(read) != len(stored) + 1:
        return None
    copies: dict[ir.Value | None, ir.Value | None] = {None: None}
    for value in read:
        own = str(value.name).removeprefix(f"{name}.") if value in stored else "x"
        copies[value] = ir.Value(name=own, type=value.type, shape=value.shape, const_value=value.const_value)
    nodes = []
    for node in inside:
        inputs = [copies[value] for value in node.inputs]
        own = str(node.name).removeprefix(f"{name}/{node.op_type}_")
        kept = list(node.attributes.values())
        nodes.append(ir.Node(node.domain, node.op_type, inputs, kept, num_outputs=len(node.outputs), name=own))
        for value, new in zip(node.outputs, nodes[-1].outputs, strict=True):
            new.name, new.type, new.shape = str(value.name).removeprefix(f"{name}."), value.type, value.shape
            copies[value] = new
    x = next(copies[value] for value in read if value not in stored)
    assert x is not None
    constants = [constant for value in stored if (constant := copies[value]) is not None]
    part = ir.Graph([x], [nodes[-1].outputs[0]], nodes=nodes, initializers=constants, name="product")
    return ir.Model(part, ir_version=10)


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
