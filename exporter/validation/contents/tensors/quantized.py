"""The quantized weights of the graphs: they hold no numbers of the model; floor `quantized` compares them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from eptx.exporter.validation.contents.tensors.graph_tensors import live_nodes
from eptx.exporter.validation.contents.tensors.model_tensors import ModelTensor

_NARROW = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4)


@dataclass
class _Room:
    """One quantized weight, and how many of its rows match no tensor yet.

    Attributes:
        table: whether its rows are looked up.
        rows: left.
        width: of a row.
        turns: whether the rows may be columns instead.
        padding: by how much a row may be wider than the tensor's.
    """

    table: bool
    rows: int
    width: int
    turns: bool = False
    padding: int = 0

    def fits(self, wanted: ModelTensor) -> bool:
        """Whether the rows that are left may hold a tensor."""
        count, width = wanted.array.shape
        if wanted.kind == "dense" or self.table != (wanted.kind == "table"):
            return False
        alike = 0 <= self.width - width <= self.padding
        return (alike and self.rows >= count) or (self.turns and (self.rows, self.width) == (width, count))

    def left_by(self, wanted: ModelTensor) -> int:
        """How many rows a tensor would leave."""
        return max(self.rows - len(wanted.array), 0)

    def take(self, wanted: ModelTensor) -> None:
        """Assigns rows to a tensor."""
        self.rows = self.left_by(wanted)


class QuantizedCapacity:
    """The quantized weights of a bundle's graphs; each stands for as many rows of the model as it has."""

    def __init__(self, graphs: Iterable[ir.Graph]) -> None:
        self._rooms = [room for graph in graphs for room in _rooms(graph)]

    def excused(self, absent: Sequence[ModelTensor]) -> set[str]:
        """The names of the tensors that the quantized weights may hold; each takes the tightest weight.

        A tensor that the model has under several names (tied embeddings) is one, and so is what it is in a product.
        """
        found: set[str] = set()
        placed: list[ModelTensor] = []
        for wanted in sorted(absent, key=lambda one: -len(one.array)):
            if any(one.kind == wanted.kind and np.may_share_memory(one.array, wanted.array) for one in placed):
                found.add(wanted.name)
                continue
            fits = [room for room in self._rooms if room.fits(wanted)]
            if fits:
                min(fits, key=lambda room: room.left_by(wanted)).take(wanted)
                found.add(wanted.name)
                placed.append(wanted)
        return found


def _rooms(graph: ir.Graph) -> Iterator[_Room]:
    for node in live_nodes(graph):
        if node.op_type == "MatMulNBits":
            yield _Room(False, node.attributes["N"].as_int(), node.attributes["K"].as_int())
        elif node.op_type == "GatherBlockQuantized":
            yield from _blocks(node)
        elif node.op_type in ("MatMulInteger", "QLinearMatMul"):
            shape = _matrix(node.inputs[1 if node.op_type == "MatMulInteger" else 3])
            if shape is not None:
                yield _Room(False, shape[1], shape[0])
        elif node.op_type in ("DequantizeLinear", "Gather"):
            yield from _narrow(node)


def _narrow(node: ir.Node) -> Iterator[_Room]:
    """A weight that is dequantized, or a quantized table."""
    value = node.inputs[0]
    if value is None or value.const_value is None or value.const_value.dtype not in _NARROW:
        return
    shape = _matrix(value)
    if shape is not None:
        looked_up = node.op_type == "Gather" or any(user.op_type == "Gather" for user in node.outputs[0].consumers())
        yield _Room(looked_up, shape[0], shape[1], not looked_up)


def _blocks(node: ir.Node) -> Iterator[_Room]:
    """A table in blocks: it has as many rows and blocks as the scales."""
    shape = _matrix(node.inputs[2])
    if shape is not None:
        size = node.attributes.get_int("block_size", 128)
        yield _Room(True, shape[0], shape[1] * size, padding=size - 1)


def _matrix(value: ir.Value | None) -> tuple[int, int] | None:
    """The shape of a constant of two axes."""
    if value is None or value.const_value is None or len(value.const_value.shape) != 2:
        return None
    first, second = value.const_value.shape.numpy()
    return first, second
