"""Task heads in the graph: a linear layer behind the bare model, which the tasks bring and the base does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from eptx.errors import BaseModelError, NotSupportedError
from eptx.exporter.adapters.adapter import TaskHeads
from eptx.exporter.adapters.changes import Whole
from eptx.exporter.adapters.updates import TensorTable
from eptx.exporter.bases.weights.bank import Bank, bank_of
from eptx.exporter.graph.edited import EditedGraph
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.ends.pooling import pool
from eptx.manifest.names import BASE_TASK, HIDDEN, LOGITS

#: The tensors of the layer, as the tasks have them: [labels, hidden] and [labels].
WEIGHT, BIAS = "task_head.weight", "task_head.bias"


def put_heads(edited: EditedGraph, heads: TaskHeads, tasks: Sequence[str]) -> None:
    """Adds the output ``logits`` [batch, most labels] by a layer that reads what the heads read.

    Tasks share its tensors like those of any module that they bring and the base lacks. A task without a head has one
    of no labels; so has the task ``base``, which is served where its rows have something else to say: an embedding.

    Args:
        edited: the graph.
        heads: the heads.
        tasks: that the bundle serves, by id.

    Raises:
        NotSupportedError: the graph has its own logits, or no output that the heads can read.
        BaseModelError: the heads are of another width than the base.
    """
    editor, graph = edited.editor, edited.graph
    _check_fits(heads, graph.model, graph.config.get("hidden_size"))
    base = graph.whole.base and graph.embedding is not None
    none = np.zeros((0, heads.hidden_size))
    rows = [*tasks, *([BASE_TASK] if base else [])]
    weight = bank_of(None, [Whole(heads.weights.get(task, none)) for task in rows], WEIGHT)
    bias = bank_of(None, [Whole(heads.biases.get(task, none[:, 0])) for task in rows], BIAS)
    banks = {WEIGHT: replace(weight, turned=True), BIAS: bias}
    names = _add_layer(editor, heads, banks)
    whole, labels = graph.whole, tuple(heads.labels(task) for task in rows)
    own = {names[tensor]: bank for tensor, bank in banks.items() if len(bank.entries) > 1}
    for tensor, name in names.items():
        if name not in own:  # all tasks have the same
            editor.tensors[name] = TensorTable(tensor, name, False, tensor == WEIGHT, (), (), None)
    edited.graph = replace(graph, whole=replace(whole, banks={**whole.banks, **own}, labels=labels, base=base))


def _check_fits(heads: TaskHeads, model: ir.Model, hidden_size: int | None) -> None:
    """Whether the heads find what they read."""
    names = [output.name for output in model.graph.outputs]
    if LOGITS in names:
        raise NotSupportedError(
            "the adapter brings task heads, but this ONNX base ends in its own: give one without a head"
        )
    source = "pooler_output" if heads.pooling == "pooler" else HIDDEN
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


def _add_layer(editor: GraphEditor, heads: TaskHeads, banks: Mapping[str, Bank]) -> dict[str, str]:
    """The layer with the tensors of the first task, in whose place the banks are put; their names in the graph."""
    pooled, size = _pooled(editor, heads), banks[WEIGHT].size
    _has_shape(editor, pooled, heads.hidden_size)
    weight, bias = (editor.constant(name, bank.arrays[0]) for name, bank in banks.items())
    product = editor.node("MatMul", [pooled, weight])[0]
    _has_shape(editor, product, size)
    logits = editor.node("Add", [product, bias])[0]
    editor.settle()
    editor.add_output(LOGITS, logits, ir.DataType.FLOAT, size)
    return {WEIGHT: str(weight.name), BIAS: str(bias.name)}


def _has_shape(editor: GraphEditor, value: ir.Value, width: int) -> None:
    """Says that a value is [batch, width]."""
    if not value.is_graph_output():
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([editor.batch_dim, width])


def _pooled(editor: GraphEditor, heads: TaskHeads) -> ir.Value:
    """What the heads read, [batch, hidden]."""
    outputs = {output.name: output for output in editor.model.graph.outputs}
    if heads.pooling == "pooler":
        return outputs["pooler_output"]
    return pool(editor, outputs[HIDDEN], heads.pooling)
