"""Puts banks into a graph: whatever reads a tensor then reads each row's own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from eptx.errors import NotSupportedError
from eptx.exporter.adapters.changes import LowRank
from eptx.exporter.bases.weights.bank import Bank
from eptx.exporter.graph.banks.columns import LOWEST, put_columns
from eptx.exporter.graph.banks.convolution import add_factors, takes_factors
from eptx.exporter.graph.banks.differing import differing
from eptx.exporter.graph.banks.lookup import look_up
from eptx.exporter.graph.banks.rows import by_task, multiply_rows, rows_of_bank, spread
from eptx.exporter.graph.editor import GraphEditor

_STANDARD = ("", "ai.onnx")
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div")
#: Norms -> which inputs are their scale and their bias; a norm of ones and zeros is then scaled outside of it.
_NORMS = {
    "LayerNormalization": (1, 2),
    "SimplifiedLayerNormalization": (1, None),
    "SkipLayerNormalization": (2, 3),
    "SkipSimplifiedLayerNormalization": (2, None),
    "RMSNormalization": (1, None),
}
#: Norms of a sum -> which input is the bias of the product before, that is added to the sum.
_BIASES = {"SkipLayerNormalization": 4, "SkipSimplifiedLayerNormalization": 3}


def attach_banks(editor: GraphEditor, banks: Mapping[str, Bank], task_id: ir.Value) -> None:
    """Has each row read its own variant of every tensor.

    Args:
        editor: of the graph.
        banks: name of an initializer, or of a form of one -> its bank, laid out as that is.
        task_id: int64 [batch], the rows' tasks.

    Raises:
        NotSupportedError: a tensor is read in a way in which rows cannot have their own.
    """
    graph = editor.model.graph
    named = {str(value.name): value for node in graph for value in node.outputs if value.name in banks}
    named |= {name: value for name, value in graph.initializers.items() if name in banks}
    tensors = {named[name]: (name, bank) for name, bank in banks.items()}
    for node in [node for node in graph if any(value in tensors for value in node.inputs)]:
        _Reader(editor, node, {v: tensors[v] for v in node.inputs if v in tensors}, task_id).replace()
    for value in tensors:
        _remove_unused(graph, value)


def _remove_unused(graph: ir.Graph, value: ir.Value) -> None:
    """Removes what nothing reads any more, with what it was made of."""
    if value.uses() or value.is_graph_output():
        return
    node = value.producer()
    if node is None:
        graph.initializers.pop(str(value.name), None)
        return
    inputs = [each for each in node.inputs if each is not None]
    graph.remove(node, safe=True)
    for each in inputs:
        _remove_unused(graph, each)


class _Reader:
    """One node that reads tensors of which rows have their own."""

    def __init__(
        self, editor: GraphEditor, node: ir.Node, tensors: Mapping[ir.Value, tuple[str, Bank]], task_id: ir.Value
    ) -> None:
        self._editor, self._node, self._tensors, self._task_id = editor, node, tensors, task_id

    def replace(self) -> None:
        """Puts nodes that read the rows' own in the place of this one."""
        y = self._node.outputs[0]
        uses = list(y.uses())
        new = self._computed()
        if new is y:  # the node stays, and what is behind it is new
            return
        self._editor.replace(y, new, uses)
        self._widen(new)
        if not any(output.uses() or output.is_graph_output() for output in self._node.outputs):
            self._editor.model.graph.remove(self._node, safe=True)

    def _widen(self, value: ir.Value) -> None:
        """A product has as many columns as the longest entry has rows."""
        weight = self._node.inputs[1] if len(self._node.inputs) > 1 else None
        if weight is None or weight not in self._tensors or value.shape is None:
            return
        if self._node.op_type in ("MatMul", "Gemm"):
            value.shape = ir.Shape([*list(value.shape)[:-1], self._tensors[weight][1].size])

    def _computed(self) -> ir.Value:
        node, kind = self._node, self._node.op_type
        own = [index for index, value in enumerate(node.inputs) if value in self._tensors]
        if node.domain in _STANDARD and kind in ("MatMul", "Gemm") and 0 not in own:
            return self._product()
        if node.domain in _STANDARD and kind in _ELEMENTWISE and len(own) == 1:
            return self._elementwise(own[0])
        if node.domain == "com.microsoft" and kind == "BiasGelu" and own == [1]:
            return self._editor.node("Gelu", [self._elementwise(1, "Add")], domain="com.microsoft")[0]
        if kind in _NORMS and set(own) <= {*_NORMS[kind], _BIASES.get(kind)}:
            if _BIASES.get(kind) in own:
                self._add_before(own.pop())
            return self._norm(*_NORMS[kind]) if own else node.outputs[0]
        if node.domain in _STANDARD and kind == "Gather" and own == [0] and node.attributes.get_int("axis", 0) == 0:
            return self._lookup()
        convolves = node.domain in _STANDARD and kind == "Conv" and 0 not in own
        if convolves and (own == [2] or takes_factors(node, self._bank(1))):
            return self._convolution(own)
        raise self._refusal()

    def _bank(self, index: int) -> Bank:
        value = self._node.inputs[index]
        assert value is not None
        return self._tensors[value][1]

    def _convolution(self, own: list[int]) -> ir.Value:
        """The convolution with each row's factors; a bias of the rows' own is taken out of it and added at the end."""
        node, editor = self._node, self._editor
        rank, (kernel, *biases) = self._rank(node.inputs[0]), node.inputs[1:]
        bias = biases[0] if 2 in own else None
        if bias is not None:
            node.resize_inputs(2)
        y = node.outputs[0]
        if 1 in own:
            assert kernel is not None
            y = add_factors(editor, str(kernel.name), self._bank(1), node, self._task_id)
        if bias is None:
            return y
        axes = editor.constant(f"rows.last_axes_{rank - 2}", np.arange(2, rank))
        return editor.node("Add", [y, editor.node("Unsqueeze", [self._own(bias), axes])[0]])[0]

    def _product(self) -> ir.Value:
        node, editor = self._node, self._editor
        x, weight, *rest = node.inputs
        plain = not node.attributes.get_int("transA", 0) and all(
            node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta")
        )
        rank = self._rank(x)
        if x is None or weight is None or not plain or rank < 2:
            raise self._refusal()
        turned = bool(node.attributes.get_int("transB", 0))
        if weight in self._tensors:
            product = self._own_product(x, weight, rank, turned=turned)
        else:
            matrix = editor.node("Transpose", [weight], perm=[1, 0])[0] if turned else weight
            product = editor.node("MatMul", [x, matrix])[0]
        bias = rest[0] if rest else None
        if bias is None:
            return product
        if bias not in self._tensors:
            return editor.node("Add", [product, bias])[0]
        return editor.node("Add", [product, spread(editor, self._own(bias), rank - 2)])[0]

    def _own_product(self, x: ir.Value, weight: ir.Value, rank: int, *, turned: bool) -> ir.Value:
        editor, (name, bank) = self._editor, self._tensors[weight]
        found = differing(bank) if rank > 2 and self._node.op_type == "MatMul" else None
        if found is not None and not any(isinstance(entry, LowRank) for entry in bank.entries):
            return put_columns(editor, name, found, bank.rows, x, self._node.outputs[0], self._task_id)
        product = multiply_rows(editor, x, rank, self._own(weight, turned=turned))
        lengths = [len(bank.array(entry)) for entry in bank.entries]
        if not bank.tokens or len(set(lengths)) == 1:
            return product
        lowest = np.array([[0.0] * n + [LOWEST] * (bank.size - n) for n in lengths])
        mask = by_task(editor, f"{name}.lacking", lowest, bank.rows, self._task_id)
        return editor.node("Add", [product, spread(editor, mask, rank - 2)])[0]

    def _elementwise(self, own: int, kind: str = "") -> ir.Value:
        values = list(self._node.inputs)
        rank, other = self._rank(values[1 - own]), values[own]
        assert other is not None and other.shape is not None
        if rank <= len(other.shape):
            raise self._refusal()
        values[own] = spread(self._editor, self._own(other), rank - 1 - len(other.shape))
        return self._editor.node(kind or self._node.op_type, [v for v in values if v is not None])[0]

    def _add_before(self, index: int) -> None:
        """Adds a norm's last input, a bias, to its first one before."""
        node, editor = self._node, self._editor
        x, bias = node.inputs[0], node.inputs[index]
        assert x is not None and bias is not None
        own = spread(editor, self._own(bias), self._rank(x) - 2)
        node.replace_input_with(0, editor.node("Add", [x, own])[0])
        node.resize_inputs(index)

    def _norm(self, scale: int, bias: int | None) -> ir.Value:
        """The node goes on as a norm of ones and zeros: its other outputs, a sum for one, are as they were."""
        node, editor = self._node, self._editor
        y = node.outputs[0]
        rank, uses = self._rank(node.inputs[1 if scale == 2 else 0]), list(y.uses())
        parts = [node.inputs[scale], node.inputs[bias] if bias is not None and len(node.inputs) > bias else None]
        result = y
        for index, value, neutral, kind in ((scale, parts[0], 1, "Mul"), (bias, parts[1], 0, "Add")):
            if value is None or index is None:
                continue
            assert value.const_value is not None
            plain = np.full(value.const_value.shape.numpy(), neutral, np.float32)
            node.replace_input_with(index, editor.constant(f"norm.{neutral}.{plain.size}", plain))
            if value in self._tensors:
                value = spread(editor, self._own(value), rank - 2)
            result = editor.node(kind, [result, value])[0]
        editor.replace(y, result, uses)
        return y

    def _lookup(self) -> ir.Value:
        table, ids, *_ = self._node.inputs
        assert table is not None
        self._rank(ids)
        return look_up(self._editor, *self._tensors[table], self._node, self._task_id)

    def _own(self, value: ir.Value, *, turned: bool = False) -> ir.Value:
        return rows_of_bank(self._editor, *self._tensors[value], self._task_id, turned=turned)

    def _rank(self, value: ir.Value | None) -> int:
        """How many axes a value has, the first of which is the rows'."""
        if value is None or value.shape is None or not self._editor.has_rows(value):
            raise self._refusal()
        if value.dtype not in (ir.DataType.FLOAT, ir.DataType.INT64):
            raise self._refusal()
        return len(value.shape)

    def _refusal(self) -> NotSupportedError:
        name = next(iter(self._tensors.values()))[0]
        return NotSupportedError(
            f"the rows of a batch cannot each have their own {name}, which tasks bring whole: this graph reads it in "
            f"{self._node.op_type}; use --mode static"
        )
