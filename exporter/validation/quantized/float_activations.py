"""Having a quantized graph compute with activations as they are, in float32: what an adapter does is seen beside that.

The weights stay what the graph stores; ONNX Runtime computes their float32 form when a session opens. Products of two
activations, as attention has them, are rounded too where a user's own quantizer rounds them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eptx.exporter.bases.products.form import walk
from eptx.exporter.bases.products.integer import integer_product
from eptx.exporter.bases.products.nbits import is_nbits
from eptx.exporter.bases.products.products import Product, find_products
from eptx.exporter.initializers import add_initializer
from eptx.exporter.validation.quantized.stored import activation


def sharpen(graph: ir.Graph) -> bool:
    """Changes a graph in place; whether any activation was rounded."""
    changed = [_sharpen(graph, product) for product in find_products(graph)]
    changed += [_exact_activations(graph, node) or _as_it_was(node) for node in list(graph)]
    return any(changed)


def _exact_activations(graph: ir.Graph, node: ir.Node) -> bool:
    """A product of two activations, both rounded: Mul(Cast(MatMulInteger(qa, qb, za, zb)), Mul(sa, sb))."""
    product = _maker(_maker_of(node, "Mul", "Cast"), "MatMulInteger")
    if product is None:
        return False
    sides = [None if value is None else value.producer() for value in product.inputs[:2]]
    if any(side is None or side.op_type != "DynamicQuantizeLinear" for side in sides):
        return False
    exact = ir.node("MatMul", [side.inputs[0] for side in sides if side is not None], name=node.name)
    _put(graph, node, exact)
    return True


def _as_it_was(node: ir.Node) -> bool:
    """An activation that was rounded, and is float32 again: as it was before."""
    coarse = rounded(node)
    if coarse is None or node.outputs[0].is_graph_output():
        return False
    x = coarse.inputs[0]
    assert x is not None
    node.outputs[0].replace_all_uses_with(x)
    return True


def rounded(node: ir.Node) -> ir.Node | None:
    """The QuantizeLinear that rounds an activation, of the node that makes it float32 again; None of other nodes."""
    coarse = _maker(node, "QuantizeLinear") if node.op_type == "DequantizeLinear" else None
    return coarse if coarse is not None and walk(coarse.inputs[0]) is None else None


def _maker_of(node: ir.Node, op_type: str, maker: str) -> ir.Node | None:
    """What gives one of the inputs of a node of a type, if it is of another type."""
    makers = [value.producer() for value in node.inputs if value is not None] if node.op_type == op_type else []
    return next((found for found in makers if found is not None and found.op_type == maker), None)


def _maker(node: ir.Node | None, op_type: str) -> ir.Node | None:
    """What gives a node's first input, if it is of a type."""
    found = node.inputs[0].producer() if node is not None and node.inputs and node.inputs[0] is not None else None
    return found if found is not None and found.op_type == op_type else None


def _put(graph: ir.Graph, node: ir.Node, exact: ir.Node) -> None:
    """Puts a node in the place of another that gives one output."""
    y, output = node.outputs[0], exact.outputs[0]
    name = y.name
    ir.convenience.replace_nodes_and_values(graph, node, [node], [exact], [y], [output])
    output.name, output.type, output.shape = name, y.type, y.shape


def _sharpen(graph: ir.Graph, product: Product) -> bool:
    node = product.node
    if is_nbits(node):
        return _exact_blocks(node)
    integers = integer_product(node)
    if integers is not None:
        scale = integers.scale_array()
        if scale is None:
            return False
        weight = _floats(graph, node, integers.weight, integers.zero_array(), scale)
        exact = ir.node("MatMul", [integers.x, weight], name=node.name)
        _put(graph, node, exact)
        return True
    return _exact_static(graph, product)


def _exact_blocks(node: ir.Node) -> bool:
    """MatMulNBits: accuracy level 1 is float32."""
    level = node.attributes.get("accuracy_level")
    if level is None or level.as_int() in (0, 1):
        return False
    node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 1)
    return True


def _exact_static(graph: ir.Graph, product: Product) -> bool:
    """A product between QuantizeLinear and DequantizeLinear: both sides without."""
    node, x = product.node, activation(product)
    found = walk(node.inputs[1]) if product.operand == 1 else None
    coarse = next((step for step in found[1] if step.op_type == "DequantizeLinear"), None) if found else None
    if x is node.inputs[0] or coarse is None:
        return False
    stored, scale, *zeros = coarse.inputs
    assert stored is not None and scale is not None
    arrays = [
        value.const_value.numpy() if value is not None and value.const_value is not None else None
        for value in (scale, *zeros)
    ]
    if arrays[0] is None:
        return False
    axis = coarse.attributes.get_int("axis", 1)
    scale_array, zero = (
        _along(array, axis) for array in (arrays[0], arrays[1] if zeros and arrays[1] is not None else np.zeros(1))
    )
    coarse.outputs[0].replace_all_uses_with(_floats(graph, coarse, stored, zero, scale_array))
    node.replace_input_with(0, x)
    return True


def _along(values: np.ndarray, axis: int) -> np.ndarray:
    """Numbers of one axis of a matrix, to broadcast with it."""
    flat = np.atleast_1d(values).astype(np.float32)
    return flat if axis % 2 else flat[:, None]


def _floats(graph: ir.Graph, before: ir.Node, stored: ir.Value, zero: np.ndarray, scale: np.ndarray) -> ir.Value:
    """(stored - zero) * scale in float32, computed by nodes before another one."""
    cast = ir.node("Cast", [stored], {"to": int(ir.DataType.FLOAT)})
    new = [cast]
    if zero.any():
        new.append(ir.node("Sub", [new[-1].outputs[0], add_initializer(graph, f"{before.name}.sharp_zero", zero)]))
    new.append(ir.node("Mul", [new[-1].outputs[0], add_initializer(graph, f"{before.name}.sharp_scale", scale)]))
    for node in new:
        node.outputs[0].name = f"{before.name}.sharp_{node.op_type}"
    graph.insert_before(before, new)
    return new[-1].outputs[0]
