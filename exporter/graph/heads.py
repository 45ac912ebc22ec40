"""Task heads in the graph: one linear classifier, or a bank of them picked per row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from eptx.errors import BaseModelError, NotSupportedError
from eptx.exporter.adapters.adapter import TaskHeads
from eptx.exporter.graph.editor import GraphEditor

LOGITS = "logits"


def check_fits(heads: TaskHeads, model: ir.Model, hidden_size: int | None) -> None:
    """Whether the heads find what they read.

    Raises:
        NotSupportedError: the graph has its own logits, or no output that the heads can read.
        BaseModelError: the heads are of another width than the base.
    """
    names = [output.name for output in model.graph.outputs]
    if LOGITS in names:
        raise NotSupportedError(
            "the adapter brings task heads, but this ONNX base ends in its own: give one without a head"
        )
    source = "pooler_output" if heads.pooling == "pooler" else "last_hidden_state"
    if source not in names:
        raise NotSupportedError(
            f"the task heads read {source} (task_head_pooling {heads.pooling!r}), which the base does not output; "
            f"it has {', '.join(map(str, names))}"
        )
    output = model.graph.outputs[names.index(source)]
    width = output.shape[-1] if output.shape else None
    width = width if isinstance(width, int) else hidden_size
    if width is not None and width != heads.hidden_size:
        raise BaseModelError(f"the task heads read {heads.hidden_size} features; the base model has {width}")
    if output.dtype not in (None, ir.DataType.FLOAT):
        raise NotSupportedError(
            f"the task heads are float32, the base's {source} is {output.dtype}: give a float32 base"
        )


def attach_head(editor: GraphEditor, heads: TaskHeads, task: str) -> None:
    """Adds the output ``logits`` [batch, labels] of one task."""
    weight = editor.constant("task_head.weight", heads.weights[task].T)
    product = editor.node("MatMul", [_pooled(editor, heads), weight])[0]
    logits = editor.node("Add", [product, editor.constant("task_head.bias", heads.biases[task])])[0]
    _add_output(editor, logits, heads.labels(task))


def attach_head_bank(editor: GraphEditor, heads: TaskHeads, tasks: Sequence[str], task_id: ir.Value) -> None:
    """Adds the output ``logits`` [batch, most labels]: each row by its task's head, zeros past its labels.

    The bank's last row is all zeros: it serves the task ``base`` and tasks without a head.
    """
    most = max(heads.labels(task) for task in tasks)
    weights = np.zeros((len(tasks) + 1, heads.hidden_size, most))
    biases = np.zeros((len(tasks) + 1, most))
    for index, task in enumerate(tasks):
        count = heads.labels(task)
        if count:
            weights[index, :, :count] = heads.weights[task].T
            biases[index, :count] = heads.biases[task]
    axis = editor.constant("task_heads.axis", np.array([1]))
    row = editor.node("Unsqueeze", [_pooled(editor, heads), axis])[0]
    weight = editor.gather(editor.constant("task_heads.weight", weights), task_id)
    product = editor.node("Squeeze", [editor.node("MatMul", [row, weight])[0], axis])[0]
    bias = editor.gather(editor.constant("task_heads.bias", biases), task_id)
    _add_output(editor, editor.node("Add", [product, bias])[0], most)


def _pooled(editor: GraphEditor, heads: TaskHeads) -> ir.Value:
    """What the heads read, [batch, hidden]."""
    outputs = {output.name: output for output in editor.model.graph.outputs}
    if heads.pooling == "pooler":
        return outputs["pooler_output"]
    hidden = outputs["last_hidden_state"]
    if heads.pooling == "first":
        return editor.node("Gather", [hidden, editor.constant("task_heads.first", np.array(0))], axis=1)[0]
    mask = editor.attention_mask()
    one = editor.constant("task_heads.axis", np.array([1]))
    if mask is None:
        return editor.node("ReduceMean", [hidden, one], keepdims=0)[0]
    counts = editor.node("Cast", [mask], to=int(ir.DataType.FLOAT))[0]
    total = editor.node("MatMul", [editor.node("Unsqueeze", [counts, one])[0], hidden])[0]
    sums = editor.node("Squeeze", [total, one])[0]
    count = editor.node("ReduceSum", [counts, one], keepdims=1)[0]
    return editor.node("Div", [sums, editor.node("Max", [count, editor.constant("task_heads.one", np.ones(()))])[0]])[0]


def _add_output(editor: GraphEditor, logits: ir.Value, labels: int) -> None:
    logits.name = editor.names.reserve(LOGITS)
    logits.type = ir.TensorType(ir.DataType.FLOAT)
    logits.shape = ir.Shape([editor.batch_dim, labels])
    editor.model.graph.outputs.append(logits)
