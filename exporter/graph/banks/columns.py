"""A product whose weight's rows tasks differ in: the base's product, with the columns of those rows put in."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eptx.exporter.graph.banks.differing import Differing
from eptx.exporter.graph.banks.rows import by_task, multiply_rows, spread
from eptx.exporter.graph.editor import GraphEditor

__all__ = ["LOWEST", "put_columns"]

#: The logit of a token that a row's task does not have: no sampling takes it, and float16 holds it.
LOWEST = -65504.0


def put_columns(
    editor: GraphEditor,
    name: str,
    found: Differing,
    entries: tuple[int, ...],
    x: ir.Value,
    y: ir.Value,
    task_id: ir.Value,
) -> ir.Value:
    """The product with each row's own columns, [batch, .., longest].

    Args:
        editor: of the graph.
        name: of the weight.
        found: what entries have of their own of the weight [out, in].
        entries: the entry of each task by id.
        x: [batch, .., in].
        y: the base's product [batch, .., out], without a bias.
        task_id: int64 [batch].
    """
    assert x.shape is not None
    rank, most = len(x.shape), max(map(len, found.rows))
    nowhere = found.size  # a column behind the last, for entries that have fewer of their own
    weights = np.zeros((len(found.rows), found.base.shape[1], most))
    columns = np.full((len(found.rows), most), nowhere, np.int64)
    for entry, own in enumerate(found.rows):
        for place, (row, values) in enumerate(own.items()):
            weights[entry, :, place], columns[entry, place] = values, row
    width = np.array([0, found.size + 1 - len(found.base)])
    last = editor.constant("rows.last_axis", np.array([-1]))
    padded = editor.node("Pad", [y, editor.constant(f"{name}.more", width), _lowest(editor), last])[0]
    own_columns = multiply_rows(editor, x, rank, by_task(editor, f"{name}.own", weights, entries, task_id))
    picked = by_task(editor, f"{name}.columns", columns, entries, task_id)
    where = editor.node("Expand", [spread(editor, picked, rank - 2), editor.node("Shape", [own_columns])[0]])[0]
    put = editor.node("ScatterElements", [padded, where, own_columns], axis=-1)[0]
    ends = [editor.constant("rows.zero_axis", np.array([0])), editor.constant(f"{name}.size", np.array([found.size]))]
    product = editor.node("Slice", [put, *ends, last])[0]
    if min(found.lengths) >= min(found.size, len(found.base)):
        return product
    lacking = np.arange(found.size) >= np.array(found.lengths)[:, None]  # columns of the base that an entry has not
    mask = spread(editor, by_task(editor, f"{name}.lacking", lacking, entries, task_id), rank - 2)
    return editor.node("Where", [mask, _lowest(editor), product])[0]


def _lowest(editor: GraphEditor) -> ir.Value:
    return editor.constant("rows.lowest", np.array(LOWEST, np.float32))
