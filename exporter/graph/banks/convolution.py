"""LoRA of a convolution: one convolution with all tasks' A, each row's own of its channels, and one of 1 x 1 with B."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from eptx.exporter.adapters.changes import LowRank
from eptx.exporter.bases.weights.bank import Bank
from eptx.exporter.graph.banks.rows import by_task
from eptx.exporter.graph.editor import GraphEditor

__all__ = ["add_factors", "takes_factors"]


def takes_factors(node: ir.Node, bank: Bank) -> bool:
    """Whether tasks add factors to a convolution's kernel, and nothing else."""
    plain = all(entry is None or (isinstance(entry, LowRank) and entry.of is None) for entry in bank.entries)
    apart = node.attributes.get_int("group", 1) == 1 and all(step == 1 for step in _dilations(node))
    return plain and apart and bank.base is not None


def add_factors(editor: GraphEditor, name: str, bank: Bank, node: ir.Node, task_id: ir.Value) -> ir.Value:
    """The convolution with each row's factors added, [batch, out, ...].

    Args:
        editor: of the graph.
        name: of the kernel.
        bank: of `LowRank`, see `takes_factors`.
        node: the base's convolution; it stays.
        task_id: int64 [batch].
    """
    x, y, bias = node.inputs[0], node.outputs[0], node.inputs[2] if len(node.inputs) > 2 else None
    assert x is not None and bank.base is not None
    out, *kernel = bank.base.shape
    low = {index: entry for index, entry in enumerate(bank.entries) if isinstance(entry, LowRank)}
    total = sum(entry.a.shape[0] for entry in low.values())
    down = np.concatenate([entry.a for entry in low.values()]).reshape(total, *kernel)
    up = np.concatenate([entry.b for entry in low.values()], axis=1).reshape(out, total, *[1] * (len(kernel) - 1))
    own, gains, start = np.zeros((len(bank.entries), total)), np.ones((len(bank.entries), out)), 0
    for index, entry in low.items():
        own[index, start : start + len(entry.a)] = 1.0
        start += len(entry.a)
        gain = entry.gain(bank.base)
        gains[index] = 1.0 if gain is None else gain
    axes = editor.constant(f"rows.last_axes_{len(kernel) - 1}", np.arange(2, 1 + len(kernel)))

    def rows(kind: str, entries: np.ndarray) -> ir.Value:
        """Each row's entry [batch, channels, 1, ..]."""
        return editor.node("Unsqueeze", [by_task(editor, f"{name}.{kind}", entries, bank.rows, task_id), axes])[0]

    narrow = editor.node("Conv", [x, editor.constant(f"{name}.left", down)])[0]
    producer = narrow.producer()
    assert producer is not None
    producer.attributes.update({key: value for key, value in node.attributes.items() if key != "kernel_shape"})
    masked = editor.node("Mul", [narrow, rows("own", own)])[0]
    result = editor.node("Add", [y, editor.node("Conv", [masked, editor.constant(f"{name}.right", up)])[0]])[0]
    if not np.any(gains != 1.0):
        return result
    result = editor.node("Mul", [result, rows("gain", gains)])[0]
    if bias is None or bias.const_value is None:
        return result
    return editor.node("Add", [result, rows("rest", bias.const_value.numpy() * (1.0 - gains))])[0]


def _dilations(node: ir.Node) -> list[int]:
    given = node.attributes.get("dilations")
    return [] if given is None else list(given.as_ints())
