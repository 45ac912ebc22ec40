"""Where an adapted module's product is in a base graph, and how its weight is stored there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from eptx.errors import BaseModelError, NotSupportedError
from eptx.exporter.bases.products import nbits
from eptx.exporter.bases.products.form import FLOATS, is_form, stored_as, stored_weight
from eptx.exporter.bases.products.integer import IntegerProduct, integer_product

__all__ = ["Site", "UnusedCall", "behind_all", "is_fixed"]


@dataclass(frozen=True)
class UnusedCall:
    """A call of a module that the graph holds no product of.

    Attributes:
        x: what the module reads: ``[..., in]``.
        beside: the product next to which the call is in the model. before: whether the call comes before it.
    """

    x: ir.Value
    beside: ir.Node
    before: bool


@dataclass(frozen=True)
class Site:
    """One adapted module's product in the graph: ``y = x W^T (+ b)``.

    The node reads its weight's initializer directly or through nodes that only change its form (Transpose,
    Cast, Identity, DequantizeLinear).

    Attributes:
        module: the module's name as the adapter has it, without ``base_model.model.``.
        node: the MatMul, Gemm, plain FusedMatMul or MatMulNBits, or the last node of a product of integers.
        columns: the slice of the node's output features that is this module; ``(0, out)`` when not packed.
        also: further products of this same module (ALBERT runs one layer many times; DeBERTa-v2 projects its
            relative positions with the content's key and query). Empty for nearly every module. An adapter
            that changes the weight changes them too: ``set_weight`` does; one that inserts nodes must treat
            each of them.
        unused: calls of this module whose outputs nothing reads, so that no product is left of them. They change no
            output, but a router among the modules routes in them. None: there are some, and the graph does not show
            what they read.
    """

    module: str
    node: ir.Node
    columns: tuple[int, int]
    also: tuple[Site, ...] = ()
    unused: tuple[UnusedCall, ...] | None = ()

    @property
    def x(self) -> ir.Value:
        """The activation that the module reads: ``[..., in]``."""
        if self._integers is not None:
            return self._integers.x
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def y(self) -> ir.Value:
        """The node's output, ``[..., N]``; this module's part is ``columns``."""
        return self.node.outputs[0]

    @property
    def weight(self) -> ir.Value:
        """The initializer. It may be packed with other modules' weights, and read by other nodes."""
        return stored_weight(self.node) if self._integers is None else self._integers.weight

    @property
    def transposed(self) -> bool:
        """True when the initializer is ``[out, in]``, False when it is ``[in, out]``."""
        return self.quantized or stored_as(self.node)

    @property
    def _integers(self) -> IntegerProduct | None:
        return integer_product(self.node)

    @property
    def quantized(self) -> bool:
        """True when the weight is in blocks of few bits, or of integers: it can be read, and not be replaced."""
        return nbits.is_nbits(self.node) or self._integers is not None

    @property
    def includes_bias(self) -> bool:
        """True when the node's output already has the bias (Gemm with a C input, MatMulNBits with one)."""
        if self.quantized:
            return nbits.is_nbits(self.node) and nbits.has_bias(self.node)
        return self.node.op_type == "Gemm" and len(self.node.inputs) > 2 and self.node.inputs[2] is not None

    @property
    def bias(self) -> ir.Value | None:
        """What the node adds to its product; None if nothing."""
        return self.node.inputs[-1] if self.includes_bias else None

    @property
    def in_features(self) -> int:
        """Width of the module's input."""
        return self._stored_shape()[1 if self.transposed else 0]

    @property
    def out_features(self) -> int:
        """Width of the module's own output (not of the packed node's)."""
        return self.columns[1] - self.columns[0]

    @property
    def packed(self) -> bool:
        """True when the node computes more than this module."""
        return self.columns != (0, self.packed_width)

    @property
    def packed_width(self) -> int:
        """Width of the node's whole output, this module's and those packed with it."""
        return self._stored_shape()[0 if self.transposed else 1]

    @property
    def fixed_input(self) -> bool:
        """True when x depends on none of the graph's inputs: it has no rows of the batch."""
        return is_fixed(self.x)

    def weight_array(self) -> np.ndarray:
        """This module's weight ``[out, in]``, as the graph multiplies by it; float64 if stored so, float32 otherwise.

        Raises:
            NotSupportedError: the weight is quantized in a way that cannot be read.
        """
        start, stop = self.columns
        stored = self._stored()
        block = stored[start:stop] if self.transposed else stored[:, start:stop].T
        return block if block.dtype == np.float64 else np.asarray(block, dtype=np.float32)

    def feed(self, x: ir.Value) -> None:
        """Has the product read another activation ``[..., in]``; others that read the same one do not."""
        if self._integers is not None:
            self._integers.feed(x)
        else:
            self.node.replace_input_with(0, x)

    def take_bias(self) -> None:
        """Takes the `bias` away from the node."""
        last = len(self.node.inputs) - 1  # of Gemm and of MatMulNBits
        self.node.replace_input_with(last, None)
        self.node.resize_inputs(next(i for i in range(last, 0, -1) if self.node.inputs[i - 1] is not None))

    def set_weight(self, weight: np.ndarray) -> None:
        """Puts another weight in place of this module's, in the graph, in the stored type and form.

        The other modules of a packed weight keep theirs. A weight that other nodes read as well is copied
        first, so that only this module (with its ``also`` products) changes.

        Args:
            weight: ``[out, in]``, any float type.

        Raises:
            BaseModelError: the shape is not this module's.
            NotSupportedError: the weight is quantized, or the new one does not fit the stored type's range.
        """
        expected = [self.out_features, self.in_features]
        if list(weight.shape) != expected:
            raise BaseModelError(f"{self.module}: the base graph's weight is {expected}, not {list(weight.shape)}")
        mine = [self, *self.also]
        if any(site.quantized for site in mine):
            raise NotSupportedError(f"{self.module} is quantized in the base graph; give the base as it was before")
        for site in mine:
            if _readers(site.weight) - {s.node for s in mine}:
                site._unshare()
        for site in mine:
            site._write(weight)

    def _write(self, weight: np.ndarray) -> None:
        start, stop = self.columns
        stored = np.array(self._stored())
        block = stored[start:stop] if self.transposed else stored[:, start:stop].T
        with np.errstate(over="ignore"):
            block[...] = weight
        if not np.isfinite(block.astype(np.float32)).all():
            raise NotSupportedError(f"{self.module}: the new weight does not fit {stored.dtype}; use a float32 base")
        value = self.weight
        value.const_value = ir.Tensor(stored, name=value.name)

    def _unshare(self) -> None:
        """Gives the node its own copy of the weight, with its own copy of the nodes between the two."""
        graph = self.node.graph
        assert isinstance(graph, ir.Graph)
        path, value = [], self.node.inputs[1]
        while value is not None and (producer := value.producer()) is not None:
            path.append(producer)
            value = producer.inputs[0]
        assert value is not None
        name, count = f"{self.module}.own_weight", 0
        while name in graph.initializers:
            count += 1
            name = f"{self.module}.own_weight_{count}"
        own = ir.Value(name=name, const_value=value.const_value, shape=value.shape, type=value.type)
        graph.register_initializer(own)
        for step in reversed(path):
            clone = ir.node(step.op_type, [own, *step.inputs[1:]], step.attributes, domain=step.domain)
            clone.outputs[0].shape, clone.outputs[0].type = step.outputs[0].shape, step.outputs[0].type
            graph.insert_before(self.node, clone)
            own = clone.outputs[0]
        self.node.replace_input_with(1, own)

    def _stored_shape(self) -> tuple[int, int]:
        """[out, in] of a quantized weight, else as the initializer is."""
        if nbits.is_nbits(self.node):
            return nbits.nbits_shape(self.node)[::-1]
        shape = self.weight.shape
        assert shape is not None
        rows, columns = shape.numpy()
        return (rows, columns) if self._integers is None else (columns, rows)

    def _stored(self) -> np.ndarray:
        if self._integers is not None:
            weight = self._integers.dequantize()
        else:
            weight = nbits.dequantize(self.node) if self.quantized else None
        if weight is not None:
            return weight
        tensor = self.weight.const_value
        if tensor is None:
            raise BaseModelError(f"{self.module}: the base graph holds no weight; export it with its weights")
        if tensor.dtype not in FLOATS:
            raise NotSupportedError(f"{self.module} is quantized in the base graph; give the base as it was before")
        return tensor.numpy()


def is_fixed(value: ir.Value) -> bool:
    """Whether a value depends on none of its graph's inputs."""
    return not any(behind.is_graph_input() for behind in behind_all([value]))


def behind_all(values: Iterable[ir.Value]) -> set[ir.Value]:
    """The values, and all that they are computed from."""
    seen: set[ir.Value] = set()
    todo = list(values)
    while todo:
        value = todo.pop()
        if value not in seen and (node := value.producer()) is not None:
            todo.extend(v for v in node.inputs if v is not None)
        seen.add(value)
    return seen


def _readers(weight: ir.Value) -> set[ir.Node]:
    """The nodes that compute with the weight, looking through those that only change its form."""
    readers: set[ir.Node] = set()
    for node in weight.consumers():
        if is_form(node):
            for output in node.outputs:
                readers |= _readers(output)
        else:
            readers.add(node)
    return readers
