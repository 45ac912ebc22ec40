"""Rewrites a quantized graph so that its activations stay float32. Then an adapter's effect is larger than rounding.

The weights keep the values that the graph stores; ONNX Runtime computes their float32 form when a session opens. A
user's own quantizer may also round both sides of attention's products of two activations; those become float32 too.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eptx.exporter.bases.initializers import add_initializer
from eptx.exporter.bases.products.form import walk
from eptx.exporter.bases.products.integer import integer_product
from eptx.exporter.bases.products.nbits import is_nbits
from eptx.exporter.bases.products.products import Product, find_products
from eptx.exporter.validation.quantized.codes import array_of
from eptx.exporter.validation.quantized.stored import activation, producer


def use_float_activations(graph: ir.Graph) -> bool:
    """Changes a graph in place, and says whether any activation was rounded."""
    changed = [_float_product(graph, product) for product in find_products(graph)]
    changed += [_float_activations_product(graph, node) or _undo_rounding(node) for node in list(graph)]
    return any(changed)


def _float_activations_product(graph: ir.Graph, node: ir.Node) -> bool:
    """A product of two activations, both rounded: Mul(Cast(MatMulInteger(qa, qb, za, zb)), Mul(sa, sb))."""
    casts = [producer(value, "Cast") for value in node.inputs] if node.op_type == "Mul" else []
    product = next((producer(cast.inputs[0], "MatMulInteger") for cast in casts if cast is not None), None)
    if product is None:
        return False
    sides = [producer(value, "DynamicQuantizeLinear") for value in product.inputs[:2]]
    if None in sides:
        return False
    exact = ir.node("MatMul", [side.inputs[0] for side in sides if side is not None], name=node.name)
    _put(graph, node, exact)
    return True


def _undo_rounding(node: ir.Node) -> bool:
    """An activation that is rounded and made float32 again: its readers get the activation itself."""
    coarse = rounded(node)
    if coarse is None or node.outputs[0].is_graph_output():
        return False
    x = coarse.inputs[0]
    assert x is not None
    node.outputs[0].replace_all_uses_with(x)
    return True


def rounded(node: ir.Node) -> ir.Node | None:
    """The QuantizeLinear that rounds an activation, given the DequantizeLinear behind it; None for other nodes."""
    coarse = producer(node.inputs[0], "QuantizeLinear") if node.op_type == "DequantizeLinear" else None
    return coarse if coarse is not None and walk(coarse.inputs[0]) is None else None


def _put(graph: ir.Graph, node: ir.Node, exact: ir.Node) -> None:
    """Replaces a node of one output by another."""
    y, output = node.outputs[0], exact.outputs[0]
    name = y.name
    ir.convenience.replace_nodes_and_values(graph, node, [node], [exact], [y], [output])
    output.name, output.type, output.shape = name, y.type, y.shape


def _float_product(graph: ir.Graph, product: Product) -> bool:
    node = product.node
    if is_nbits(node):
        return _float_blocks(node)
    integers = integer_product(node)
    if integers is not None:
        scale = integers.scale_array()
        if scale is None:
            return False
        weight = _floats(graph, node, integers.weight, integers.zero_array(), scale)
        exact = ir.node("MatMul", [integers.x, weight], name=node.name)
        _put(graph, node, exact)
        return True
    return _float_static(graph, product)


def _float_blocks(node: ir.Node) -> bool:
    """MatMulNBits: accuracy level 1 is float32."""
    level = node.attributes.get("accuracy_level")
    if level is None or level.as_int() in (0, 1):
        return False
    node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 1)
    return True


def _float_static(graph: ir.Graph, product: Product) -> bool:
    """A product whose input is rounded and whose weight is stored as integers: float32 on both sides."""
    node, x = product.node, activation(product)
    found = walk(node.inputs[1]) if product.operand == 1 else None
    coarse = next((step for step in found[1] if step.op_type == "DequantizeLinear"), None) if found else None
    if x is node.inputs[0] or coarse is None:
        return False
    stored, scale, *zeros = coarse.inputs
    assert stored is not None
    scale_array, zero_array = array_of(scale), array_of(zeros[0]) if zeros else None
    if scale_array is None:
        return False
    axis = coarse.attributes.get_int("axis", 1)
    zero = np.zeros(1) if zero_array is None else zero_array
    floats = _floats(graph, coarse, stored, _along(zero, axis), _along(scale_array, axis))
    coarse.outputs[0].replace_all_uses_with(floats)
    node.replace_input_with(0, x)
    return True


def _along(values: np.ndarray, axis: int) -> np.ndarray:
    """The numbers of one axis of a matrix, in a shape that broadcasts with it."""
    flat = np.atleast_1d(values).astype(np.float32)
    return flat if axis % 2 else flat[:, None]


def _floats(graph: ir.Graph, before: ir.Node, stored: ir.Value, zero: np.ndarray, scale: np.ndarray) -> ir.Value:
    """(stored - zero) * scale in float32, computed by nodes before another one."""

    def constant(kind: str, array: np.ndarray) -> ir.Value:
        return add_initializer(graph, f"{before.name}.float_{kind}", array)

    new = [ir.node("Cast", [stored], {"to": int(ir.DataType.FLOAT)})]
    if zero.any():
        new.append(ir.node("Sub", [new[-1].outputs[0], constant("zero", zero)]))
    new.append(ir.node("Mul", [new[-1].outputs[0], constant("scale", scale)]))
    for node in new:
        node.outputs[0].name = f"{before.name}.float_{node.op_type}"
    graph.insert_before(before, new)
    return new[-1].outputs[0]
