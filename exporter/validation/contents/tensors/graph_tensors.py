"""The float constants of a graph, and how it uses them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx_ir as ir

from eptx.exporter.validation.contents.tensors.model_tensors import Kind, as_rows
from eptx.manifest.names import OPERATOR_DOMAIN

#: Nodes that only change the form of a tensor.
_FORMS = ("Cast", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Slice", "Split", "Flatten")
_LOOKUPS = ("Gather", "GatherND", "GatherElements", "EmbedLayerNormalization")
_PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulNBits")
#: Operators that split one packed tensor into query, key and value, in this order.
_ATTENTION = ("GroupQueryAttention", "MultiHeadAttention", "PagedAttention")
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


@dataclass
class GraphTensor:
    """One float constant that an output of its graph depends on.

    Attributes:
        name: in the graph.
        side: "encoder" or "decoder" of two graphs; None of one.
        uses: the operators that read it, once per use, past nodes that only change its form.
        tensor: its numbers.
        for_attention: whether it is a packed projection, or its bias, that an attention operator splits.
        taken: its rows (columns, if turned) that match a tensor of the model: (turned, start, stop).
    """

    name: str
    side: str | None
    uses: tuple[str, ...]
    tensor: ir.TensorProtocol
    for_attention: bool
    taken: list[tuple[bool, int, int]] = field(default_factory=list)

    @cached_property
    def rows(self) -> np.ndarray:
        """Its rows [n, width], in the stored type."""
        return as_rows(self.tensor.numpy())

    @cached_property
    def firsts(self) -> tuple[np.ndarray, np.ndarray]:
        """The first number of each row, and of each column."""
        return np.ascontiguousarray(self.rows[:, 0]), np.ascontiguousarray(self.rows[0])

    def turned(self, turn: bool) -> np.ndarray:
        """The rows, or the columns as rows."""
        return self.rows.T if turn else self.rows

    def serves(self, kind: Kind, side: str | None) -> bool:
        """Whether the graph reads it as a tensor of this kind is read."""
        if side is not None and self.side is not None and side != self.side:
            return False
        unfit = {"table": _PRODUCTS, "product": _LOOKUPS, "dense": ()}[kind]
        return any(use not in unfit for use in self.uses)


def read_graph_tensors(graph: ir.Graph, side: str | None) -> list[GraphTensor]:
    """Every float constant of more than one number that a live node reads, also in subgraphs."""
    live = live_nodes(graph)
    found = []
    for value, tensor in _constants(graph):
        if tensor.dtype not in _FLOATS or tensor.size < 2:
            continue
        uses = tuple(_uses(value, live))
        if uses:
            found.append(GraphTensor(value.name or "", side, uses, tensor, _is_for_attention(value)))
    return found


def live_nodes(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that an output depends on, with all nodes of their subgraphs."""
    live: set[ir.Node] = set()
    waiting = [value.producer() for value in graph.outputs]
    while waiting:
        node = waiting.pop()
        if node is None or node in live:
            continue
        live.add(node)
        waiting += [value.producer() for value in node.inputs if value is not None]
        for attribute in node.attributes.values():
            for inner in _graphs(attribute):
                for child in inner:
                    waiting.append(child)
    return live


def _graphs(attribute: ir.Attr) -> list[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return list(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS else []


def _constants(graph: ir.Graph) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    for value in graph.initializers.values():
        if value.const_value is not None:
            yield value, value.const_value
    for node in graph.all_nodes():
        if node.op_type == "Constant" and "value" in node.attributes:
            yield node.outputs[0], node.attributes["value"].as_tensor()
        for attribute in node.attributes.values():
            for inner in _graphs(attribute):
                for value in inner.initializers.values():
                    if value.const_value is not None:
                        yield value, value.const_value


def _uses(value: ir.Value, live: set[ir.Node]) -> Iterator[str]:
    seen: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        if value.is_graph_output():
            yield "output"
        for user in value.consumers():
            if user not in live:
                continue
            if user.op_type in _FORMS and user.domain in ("", "ai.onnx") and user.inputs[0] is value:
                waiting += user.outputs
            else:
                yield user.op_type


def _is_for_attention(value: ir.Value) -> bool:
    """Whether the product with it, or the sum, goes to an attention operator in one piece."""
    waiting, seen = [value], set[ir.Value]()
    while waiting:
        value = waiting.pop()
        for user in value.consumers():
            if user.op_type in _ATTENTION and user.inputs[0] is value:
                return all(other is None or not other.name for other in user.inputs[1:3])
            if user.domain == OPERATOR_DOMAIN or user.op_type in (*_PRODUCTS, "Add", "Cast", "Identity", "Transpose"):
                waiting += [output for output in user.outputs if output not in seen]
                seen.update(user.outputs)
    return False
