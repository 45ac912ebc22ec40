"""The tables that a graph looks rows up in: token, position and type embeddings."""

from __future__ import annotations

import onnx_ir as ir

#: Tables with fewer numbers gain nothing from being stored in a narrower type.
_MIN_SIZE = 65536


def find_embeddings(graph: ir.Graph) -> list[ir.Node]:
    """Every Gather of rows of a large float32 table [rows, width], which products may read as well (tied heads)."""
    return [node for node in graph if _is_embedding(node)]


def _is_embedding(node: ir.Node) -> bool:
    if node.op_type != "Gather" or node.domain not in ("", "ai.onnx") or node.attributes.get_int("axis", 0) != 0:
        return False
    table = node.inputs[0]
    if table is None or not table.is_initializer() or table.const_value is None or table.dtype != ir.DataType.FLOAT:
        return False
    return len(table.const_value.shape) == 2 and table.const_value.size >= _MIN_SIZE
