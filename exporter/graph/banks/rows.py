"""What each row of a batch reads of a bank."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eptx.exporter.bases.weights.bank import Bank
from eptx.exporter.graph.editor import GraphEditor

__all__ = ["by_task", "multiply_rows", "rows_of_bank", "spread"]


def rows_of_bank(editor: GraphEditor, name: str, bank: Bank, task_id: ir.Value) -> ir.Value:
    """Each row's entry in full, [batch, *shape]."""
    return by_task(editor, name, np.stack(bank.arrays), bank.rows, task_id)


def by_task(editor: GraphEditor, name: str, entries: np.ndarray, rows: tuple[int, ...], task_id: ir.Value) -> ir.Value:
    """Each row's entry [batch, *shape].

    Args:
        editor: of the graph.
        name: of the bank.
        entries: [n, *shape].
        rows: the entry of each task by id.
        task_id: int64 [batch].
    """
    picked = task_id
    if rows != tuple(range(len(entries))):
        picked = editor.gather(editor.constant(f"{name}.entries", np.array(rows)), task_id)
    return editor.gather(editor.constant(f"{name}.bank", entries), picked)


def multiply_rows(editor: GraphEditor, x: ir.Value, rank: int, weight: ir.Value) -> ir.Value:
    """Each row of x [batch, .., in], which has `rank` axes, by its own matrix: weight is [batch, in, out]."""
    if rank == 2:
        axis = editor.constant("rows.axis", np.array([1]))
        row = editor.node("Unsqueeze", [x, axis])[0]
        return editor.node("Squeeze", [editor.node("MatMul", [row, weight])[0], axis])[0]
    return editor.node("MatMul", [x, spread(editor, weight, rank - 3)])[0]


def spread(editor: GraphEditor, value: ir.Value, axes: int) -> ir.Value:
    """A value [batch, ..] with so many axes of one after the first."""
    if axes < 1:
        return value
    return editor.node("Unsqueeze", [value, editor.constant(f"rows.axes_{axes}", np.arange(1, 1 + axes))])[0]
