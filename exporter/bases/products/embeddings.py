"""The tables that a graph looks rows up in: token, position and type embeddings."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eptx.exporter.bases.products.form import walk

#: Tables with fewer numbers gain nothing from being stored in a narrower type.
_MIN_SIZE = 65536


def find_embeddings(graph: ir.Graph) -> list[ir.Node]:
    """Every Gather of rows of a large float32 table [rows, width]; a table may be that of a product, turned (tied
    heads)."""
    return [node for node in graph if _is_embedding(node)]


def table_of(node: ir.Node) -> np.ndarray:
    """The table of an embedding, float32 [rows, width]."""
    found = walk(node.inputs[0])
    assert found is not None and found[0].const_value is not None
    array = found[0].const_value.numpy()
    return array.T if sum(step.op_type == "Transpose" for step in found[1]) % 2 else array


def _is_embedding(node: ir.Node) -> bool:
    if node.op_type != "Gather" or node.domain not in ("", "ai.onnx") or node.attributes.get_int("axis", 0) != 0:
        return False
    found = walk(node.inputs[0])
    if found is None or found[0].const_value is None or found[0].dtype != ir.DataType.FLOAT:
        return False
    plain = all(step.op_type in ("Transpose", "Identity") for step in found[1])
    return plain and len(found[0].const_value.shape) == 2 and found[0].const_value.size >= _MIN_SIZE
