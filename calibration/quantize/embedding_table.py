"""Embedding tables as int8 with a scale per row, in standard operators.

ONNX Runtime's own quantizers give a table one scale for all its rows (8 bits) or blocks of 4 bits. With one scale the
many small rows lose their digits to the few large ones. See docs/adr/0008.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eptx.calibration.quantize.splice import replace_node
from eptx.exporter.bases.initializers import add_initializer
from eptx.exporter.bases.products.embeddings import table_of

_LARGEST = 127.0


def stored_names(node: str) -> tuple[str, str]:
    """The constants that `store_rows` makes of an embedding's table: its rows, and their scales."""
    return f"{node}.int8", f"{node}.scale"


def store_rows(graph: ir.Graph, node: ir.Node) -> None:
    """Replaces a Gather of a float32 table [rows, width] by one of int8 rows times their scales."""
    ids = node.inputs[1]
    rows, scales = quantize_rows(table_of(node))
    names = stored_names(str(node.name))
    stored = [add_initializer(graph, name, array) for name, array in zip(names, (rows, scales), strict=True)]
    gathers = [ir.node("Gather", [value, ids], {"axis": 0}, name=f"{node.name}/{value.name}") for value in stored]
    cast = ir.node("Cast", [gathers[0].outputs[0]], {"to": int(ir.DataType.FLOAT)}, name=f"{node.name}/Cast")
    product = ir.node("Mul", [cast.outputs[0], gathers[1].outputs[0]], name=node.name)
    for new in (*gathers, cast):
        new.outputs[0].name = f"{new.name}.output"
    replace_node(graph, node, [*gathers, cast, product])


def halve_rows(graph: ir.Graph, node: ir.Node) -> None:
    """Replaces a Gather of a float32 table by one of float16 rows, cast back; the table is never float32 in memory."""
    ids = node.inputs[1]
    stored = add_initializer(graph, f"{node.name}.fp16", table_of(node).astype(np.float16))
    gather = ir.node("Gather", [stored, ids], {"axis": 0}, name=f"{node.name}/{stored.name}")
    gather.outputs[0].name = f"{gather.name}.output"
    cast = ir.node("Cast", [gather.outputs[0]], {"to": int(ir.DataType.FLOAT)}, name=node.name)
    replace_node(graph, node, [gather, cast])


def quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows as int8 [rows, width] and their scales float32 [rows, 1]: the largest number of a row becomes 127."""
    largest = np.abs(table).max(axis=1, keepdims=True)
    scales = np.where(largest > 0, largest / _LARGEST, 1.0).astype(np.float32)
    return np.rint(table / scales).astype(np.int8), scales
