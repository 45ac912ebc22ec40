"""bfloat16 arithmetic as float32 arithmetic that is rounded: ONNX Runtime has none of its own on CPUs.

PyTorch computes it so too, to the same bits. Some models compute a part in bfloat16 whatever the type of their weights
is (the scores of Falcon's ALiBi).
"""

from __future__ import annotations

import onnx_ir as ir

_ARITHMETIC = ("Add", "Sub", "Mul", "Div")


def widen_bfloat16(model: ir.Model) -> None:
    """Puts casts around arithmetic on bfloat16, in place."""
    for node in list(model.graph.all_nodes()):
        result = node.outputs[0]
        if node.op_type not in _ARITHMETIC or result.dtype != ir.DataType.BFLOAT16 or node.graph is None:
            continue
        wide = [_cast(value, ir.DataType.FLOAT) for value in node.inputs if value is not None]
        exact = ir.Node(node.domain, node.op_type, [cast.outputs[0] for cast in wide])
        exact.outputs[0].dtype, exact.outputs[0].shape = ir.DataType.FLOAT, result.shape
        rounded = _cast(exact.outputs[0], ir.DataType.BFLOAT16)
        ir.convenience.replace_nodes_and_values(
            node.graph, node, [node], [*wide, exact, rounded], [result], [rounded.outputs[0]]
        )


def _cast(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))])
    node.outputs[0].dtype, node.outputs[0].shape = dtype, value.shape
    return node
