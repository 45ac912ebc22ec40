"""What each row of a batch reads of a bank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from eptx.exporter.adapters.updates import TensorTable
from eptx.exporter.bases.weights.bank import Bank
from eptx.exporter.graph.editor import GraphEditor

__all__ = ["by_task", "multiply_rows", "rows_of_bank", "spread"]


def rows_of_bank(editor: GraphEditor, name: str, bank: Bank, task_id: ir.Value, *, turned: bool = False) -> ir.Value:
    """Each row's entry in full, [batch, *shape].

    Args:
        editor: of the graph.
        name: of the tensor in the graph.
        bank: of it.
        task_id: int64 [batch].
        turned: whether the last two axes are swapped, against how the graph stores the tensor.
    """
    own = replace(bank, turned=bank.turned != turned)
    entries = np.stack(own.arrays)
    if not bank.tokens:
        sizes = tuple(len(array) if (array := bank.array(entry)).ndim else 0 for entry in bank.entries)
        base = next((index for index, entry in enumerate(bank.entries) if entry is None), None)
        table = TensorTable(bank.tensor, name, bank.turned, own.turned, bank.rows, sizes, base)
        editor.tensors[str(editor.constant(f"{name}.bank", entries).name)] = table
    return by_task(editor, name, entries, bank.rows, task_id)


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
