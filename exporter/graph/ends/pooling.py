"""How the vectors of a row's tokens become one vector, in standard operators; padding never counts.

The modes are sentence-transformers' and, with its own name, one of task heads: ``first`` is position 0, padding or not.
A mask's zeros hide a position wherever it stands, so rows may be padded on either side.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from eptx.exporter.graph.builder import GraphBuilder

__all__ = ["pool"]


def pool(builder: GraphBuilder, hidden: ir.Value, mode: str) -> ir.Value:
    """The vector of each row, [batch, hidden].

    Args:
        builder: of the graph.
        hidden: float32 [batch, length, hidden].
        mode: "first", or one of `POOLINGS`.
    """
    return _MODES[mode](_Pooling(builder, hidden))


class _Pooling:
    """The tokens of a batch, and which of them count."""

    def __init__(self, builder: GraphBuilder, hidden: ir.Value) -> None:
        self._builder, self._hidden = builder, hidden
        mask = builder.attention_mask()
        self._mask = None if mask is None else self._node("Cast", mask, to=int(ir.DataType.FLOAT))

    def first(self) -> ir.Value:
        """The vector at position 0."""
        return self._node("Gather", self._hidden, self._constant("first", np.array(0)), axis=1)

    def cls(self) -> ir.Value:
        """The vector of the first token that counts."""
        if self._mask is None:
            return self.first()
        return self._at(self._start(self._mask))

    def last(self) -> ir.Value:
        """The vector of the last token that counts."""
        counted = self._node("Mul", self._positions(), self._counts())
        return self._at(self._node("ReduceMax", counted, self._axis(1), keepdims=1))

    def largest(self) -> ir.Value:
        """The largest number in each place of the vectors."""
        hidden = self._hidden
        if self._mask is not None:
            counts = self._node("Greater", self._mask, self._constant("none", np.zeros(())))
            lowest = self._constant("lowest", np.array(np.finfo(np.float32).min))
            hidden = self._node("Where", self._node("Unsqueeze", counts, self._axis(2)), hidden, lowest)
        return self._node("ReduceMax", hidden, self._axis(1), keepdims=0)

    def mean(self) -> ir.Value:
        """The mean of the vectors."""
        if self._mask is None:
            return self._node("ReduceMean", self._hidden, self._axis(1), keepdims=0)
        return self._node("Div", self._sum(self._mask), self._total(self._mask))

    def mean_sqrt_len(self) -> ir.Value:
        """The sum of the vectors, divided by the root of their number."""
        counts = self._counts()
        return self._node("Div", self._sum(counts), self._node("Sqrt", self._total(counts)))

    def weighted(self) -> ir.Value:
        """The mean of the vectors, weighted by 1, 2, 3, ... from the first token that counts."""
        counts, places = self._counts(), self._node("Add", self._positions(), self._one())
        if self._mask is not None:
            places = self._node("Sub", places, self._start(self._mask))
        weights = self._node("Mul", counts, places)
        return self._node("Div", self._sum(weights), self._total(weights))

    def _sum(self, weights: ir.Value) -> ir.Value:
        """The weighted sum of the vectors, [batch, hidden]; weights are [batch, length]."""
        total = self._node("MatMul", self._node("Unsqueeze", weights, self._axis(1)), self._hidden)
        self._builder.wide |= {node for node in (total.producer(),) if node is not None}  # a sum over all positions
        return self._node("Squeeze", total, self._axis(1))

    def _total(self, weights: ir.Value) -> ir.Value:
        """The sum of the weights [batch, 1], and 1 for a row in which nothing counts."""
        return self._node("Max", self._node("ReduceSum", weights, self._axis(1), keepdims=1), self._one())

    def _at(self, positions: ir.Value) -> ir.Value:
        """The vectors at positions float32 [batch, 1]."""
        places = self._node("Cast", positions, to=int(ir.DataType.INT64))
        return self._node("GatherND", self._hidden, places, batch_dims=1)

    def _start(self, mask: ir.Value) -> ir.Value:
        """The position of the first token that counts, float32 [batch, 1]: what is hidden counts as behind the row."""
        length = self._node("Cast", self._node("Shape", self._hidden, start=1, end=2), to=int(ir.DataType.FLOAT))
        behind = self._node("Mul", self._node("Sub", self._one(), mask), length)
        return self._node("ReduceMin", self._node("Add", self._positions(), behind), self._axis(1), keepdims=1)

    def _counts(self) -> ir.Value:
        """float32 [batch, length]: 1 for a token that counts, 0 for padding."""
        if self._mask is not None:
            return self._mask
        shape = self._node("Shape", self._hidden, start=0, end=2)
        return self._node("Expand", self._one(), shape)

    def _positions(self) -> ir.Value:
        """float32 [length]: 0, 1, 2, ..."""
        ends = self._constant("zero", np.array(0)), self._constant("step", np.array(1))
        length = self._node("Squeeze", self._node("Shape", self._hidden, start=1, end=2))
        return self._node("Cast", self._node("Range", ends[0], length, ends[1]), to=int(ir.DataType.FLOAT))

    def _one(self) -> ir.Value:
        return self._constant("one", np.ones(()))

    def _axis(self, axis: int) -> ir.Value:
        return self._constant(f"axis_{axis}", np.array([axis]))

    def _constant(self, name: str, array: np.ndarray) -> ir.Value:
        return self._builder.constant(f"pooling.{name}", array)

    def _node(self, op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        return self._builder.node(op_type, inputs, domain="", outputs=1, **attributes)[0]


_MODES: dict[str, Callable[[_Pooling], ir.Value]] = {
    "first": _Pooling.first,
    "cls": _Pooling.cls,
    "max": _Pooling.largest,
    "mean": _Pooling.mean,
    "mean_sqrt_len_tokens": _Pooling.mean_sqrt_len,
    "weightedmean": _Pooling.weighted,
    "lasttoken": _Pooling.last,
}
