"""How a product reads its weight: from an initializer, or through nodes that only change its form."""

from __future__ import annotations

import onnx_ir as ir

FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

_STANDARD = ("", "ai.onnx")


def is_form(node: ir.Node) -> bool:
    """True for a node that only changes how a rank-2 weight is written down."""
    if node.domain not in _STANDARD or not node.inputs or node.inputs[0] is None:
        return False
    if node.op_type == "Transpose":
        perm = node.attributes.get("perm")
        return perm is None or list(perm.as_ints()) == [1, 0]
    return node.op_type in ("Identity", "Cast", "DequantizeLinear")


def walk(value: ir.Value | None) -> tuple[ir.Value, list[ir.Node]] | None:
    """The initializer that ``value`` is a form of, and the nodes between, nearest first; or None."""
    path: list[ir.Node] = []
    while value is not None:
        producer = value.producer()
        if producer is None:
            return (value, path) if value.is_initializer() and not value.is_graph_input() else None
        if not is_form(producer):
            return None
        path.append(producer)
        value = producer.inputs[0]
    return None


def stored_weight(node: ir.Node) -> ir.Value:
    """The initializer of the second input of a product that ``products`` found."""
    found = walk(node.inputs[1])
    assert found is not None
    return found[0]


def stored_as(node: ir.Node, operand: int = 1) -> bool:
    """True when the product's initializer is ``[out, in]``, False when it is ``[in, out]``."""
    found = walk(node.inputs[operand])
    assert found is not None
    flips = sum(step.op_type == "Transpose" for step in found[1])
    # a weight on the left, W x^T, is the other way round
    flips += bool(node.attributes.get_int("transB", 0)) if operand == 1 else 1
    return flips % 2 == 1
