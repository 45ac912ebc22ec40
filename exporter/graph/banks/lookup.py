"""Rows that are looked up in a table, each row of the batch in its task's: in the base's and what tasks differ in."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eptx.exporter.adapters.changes import LowRank
from eptx.exporter.bases.weights.bank import Bank
from eptx.exporter.graph.banks.differing import Differing, differing
from eptx.exporter.graph.banks.rows import by_task, spread
from eptx.exporter.graph.editor import GraphEditor

__all__ = ["look_up"]


def look_up(editor: GraphEditor, name: str, bank: Bank, node: ir.Node, task_id: ir.Value) -> ir.Value:
    """What a node looks up, each row in its own table: [batch, ..., width].

    Args:
        editor: of the graph.
        name: of the table.
        bank: of tables.
        node: a Gather of rows of the base's table, by ids int64 [batch, ...].
        task_id: int64 [batch].
    """
    ids, found = node.inputs[1], differing(bank)
    assert ids is not None and ids.shape is not None
    rank = len(ids.shape)
    if found is None:
        starts = np.array(bank.rows) * bank.size
        whole = editor.constant(f"{name}.bank", np.concatenate(bank.arrays))
        return editor.gather(whole, _moved(editor, f"{name}.starts", starts, ids, rank, task_id))
    y = _with_rows(editor, name, found, bank.rows, node, task_id)
    if not any(isinstance(entry, LowRank) for entry in bank.entries):
        return y
    return _with_factors(editor, name, bank, y, ids, rank, task_id)


def _moved(editor: GraphEditor, name: str, starts: np.ndarray, ids: ir.Value, rank: int, task_id: ir.Value) -> ir.Value:
    """The ids, plus a number of each row's task."""
    start = editor.gather(editor.constant(name, starts), task_id)
    return editor.node("Add", [ids, spread(editor, start, rank - 1)])[0]


def _with_rows(
    editor: GraphEditor, name: str, found: Differing, entries: tuple[int, ...], node: ir.Node, task_id: ir.Value
) -> ir.Value:
    """What the node looks up in the base's table, or the entries' own rows, which stand one after the other."""
    ids, y = node.inputs[1], node.outputs[0]
    assert ids is not None and ids.shape is not None
    changed = sorted({row for own in found.rows for row in own})
    if not changed:
        return y
    slots = np.zeros(found.size, np.int64)  # 0: no entry changes the row
    slots[changed] = np.arange(1, len(changed) + 1)
    places = np.full((len(found.rows), len(changed) + 1), -1)  # -1: it is the base's
    start = 0
    for entry, own in enumerate(found.rows):
        places[entry, slots[list(own)]] = np.arange(start, start + len(own))
        start += len(own)
    table = editor.constant(f"{name}.rows", np.stack([row for own in found.rows for row in own.values()]))
    none = editor.constant("rows.none", np.array(0))
    slot = editor.gather(editor.constant(f"{name}.slots", slots), ids)
    index = _moved(editor, f"{name}.first_slots", np.array(entries) * places.shape[1], slot, len(ids.shape), task_id)
    place = editor.gather(editor.constant(f"{name}.places", places.reshape(-1)), index)
    own_rows = editor.gather(table, editor.node("Max", [place, none])[0])
    if found.size > len(found.base):  # the base's table does not have the last rows
        first = editor.node("Less", [ids, editor.constant(f"{name}.size", np.array(len(found.base)))])[0]
        node.replace_input_with(1, editor.node("Where", [first, ids, none])[0])
    is_base = editor.node("Less", [place, none])[0]
    last = editor.constant("rows.last_axis", np.array([-1]))
    return editor.node("Where", [editor.node("Unsqueeze", [is_base, last])[0], y, own_rows])[0]


def _with_factors(
    editor: GraphEditor, name: str, bank: Bank, y: ir.Value, ids: ir.Value, rank: int, task_id: ir.Value
) -> ir.Value:
    """The product of each row's factors added, and multiplied by its gain."""
    low = {index: entry for index, entry in enumerate(bank.entries) if isinstance(entry, LowRank)}
    widest = max(entry.a.shape[0] for entry in low.values())
    width = next(iter(low.values())).a.shape[1]
    tokens, factors = np.zeros((len(low), bank.size, widest)), np.zeros((len(low) + 1, widest, width))
    gains = np.ones((len(bank.entries), width))
    of = dict.fromkeys(range(len(bank.entries)), len(low))  # the last pair of factors is zero
    for place, (index, entry) in enumerate(low.items()):
        of[index] = place
        tokens[place, : len(entry.b), : entry.b.shape[1]] = entry.b
        factors[place, : entry.a.shape[0]] = entry.a
        gain = entry.gain(bank.base)
        gains[index] = 1.0 if gain is None else gain
    pairs = tuple(of[row] for row in bank.rows)
    starts = np.array([min(pair, len(low) - 1) * bank.size for pair in pairs])
    moved = _moved(editor, f"{name}.factor_starts", starts, ids, rank, task_id)
    left = editor.gather(editor.constant(f"{name}.left", tokens.reshape(-1, widest)), moved)
    right = by_task(editor, f"{name}.right", factors, pairs, task_id)
    if rank == 1:
        axis = editor.constant("rows.axis", np.array([1]))
        product = editor.node("Squeeze", [editor.node("MatMul", [_row(editor, left, axis), right])[0], axis])[0]
    else:
        product = editor.node("MatMul", [left, spread(editor, right, rank - 2)])[0]
    result = editor.node("Add", [y, product])[0]
    if not np.any(gains != 1.0):
        return result
    own = by_task(editor, f"{name}.gain", gains, bank.rows, task_id)
    return editor.node("Mul", [result, spread(editor, own, rank - 1)])[0]


def _row(editor: GraphEditor, value: ir.Value, axis: ir.Value) -> ir.Value:
    return editor.node("Unsqueeze", [value, axis])[0]
