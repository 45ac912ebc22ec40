"""The products with a weight in a graph: every node that may be an adapted module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from eptx.exporter.bases.products import nbits
from eptx.exporter.bases.products.form import FLOATS, stored_as, walk
from eptx.exporter.bases.products.integer import integer_product

_STANDARD = ("", "ai.onnx")
_ABSORBING = ("Attention", "FusedGemm", "GemmFastGelu", "PackedAttention", "DecoderAttention")
_SUFFIXES = (".weight", ".weight_quantized", ".weight_transposed")


@dataclass(frozen=True)
class Product:
    """A node that multiplies an activation by a matrix of weights.

    Attributes:
        node: MatMul, Gemm, FusedMatMul, MatMulNBits, or the last node of a product of integers; or an operator that
            has such a product inside, which is then refused.
        weight: the initializer.
        names: the modules that the graph's own names say it may be: the node's name first, then the weight's.
        refusal: why it cannot be adapted, or "".
        operand: which input the weight is.
    """

    node: ir.Node
    weight: ir.Value
    names: tuple[str, ...]
    refusal: str = ""
    operand: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """[in, out] as the node uses it."""
        if nbits.is_nbits(self.node):
            return nbits.nbits_shape(self.node)
        assert self.weight.shape is not None
        rows, columns = self.weight.shape.numpy()
        if integer_product(self.node) is not None:
            return rows, columns
        return (columns, rows) if stored_as(self.node, self.operand) else (rows, columns)

    @property
    def coarse(self) -> ir.Node | None:
        """The DequantizeLinear that gives the weight, if one does."""
        if nbits.is_nbits(self.node) or integer_product(self.node) is not None:
            return None
        found = walk(self.node.inputs[self.operand])
        return next((step for step in found[1] if step.op_type == "DequantizeLinear"), None) if found else None

    def matrix(self) -> np.ndarray | None:
        """The weight as [out, in], dequantized; None when the graph does not hold it."""
        if nbits.is_nbits(self.node):
            return nbits.dequantize(self.node)
        integers = integer_product(self.node)
        if integers is not None:
            return integers.dequantize()
        found = walk(self.node.inputs[self.operand])
        if found is None or found[0].const_value is None:
            return None
        array = found[0].const_value.numpy()
        quantized = self.coarse
        if quantized is not None:
            dequantized = _dequantize(array, quantized)
            if dequantized is None:
                return None
            array = dequantized
        elif found[0].const_value.dtype not in FLOATS:
            return None
        return array if stored_as(self.node, self.operand) else array.T

    def step(self) -> np.ndarray | float:
        """By how much a quantized weight may differ from what it was, to compare [out, in] with; 0.0 for floats.

        Half a step, or a whole one in MatMulNBits, whose symmetric range is a step shorter on one side.
        """
        if nbits.is_nbits(self.node):
            step = nbits.step(self.node)
            return 0.0 if step is None else step
        integers = integer_product(self.node)
        if integers is not None:
            step = integers.step()
            return 0.0 if step is None else 0.5 * step
        quantized = self.coarse
        if quantized is None:
            return 0.0
        scale = _array(quantized.inputs[1])
        if scale is None:
            return 0.0
        spread = _along(np.abs(scale), quantized, 2)
        return 0.5 * (spread if stored_as(self.node, self.operand) else spread.T)


def find_products(graph: ir.Graph) -> list[Product]:
    """Every product of the graph's top level that has a rank-2 weight, in the graph's order."""
    found = (_product(node) for node in graph)
    return [product for product in found if product is not None]


def _product(node: ir.Node) -> Product | None:
    integers = integer_product(node)
    if integers is not None:
        return Product(node, integers.weight, _names(node, integers.weight))
    if len(node.inputs) < 2 or not (_is_plain(node) or _absorbs(node) or nbits.is_nbits(node)):
        return None
    weight = walk(node.inputs[1])
    if weight is not None and (_rank(weight[0]) == 2 or nbits.is_nbits(node)):
        return Product(node, weight[0], _names(node, weight[0]), _refusal(node))
    if not _is_plain(node):
        return None
    left = walk(node.inputs[0])
    if left is not None and _rank(left[0]) == 2 and node.inputs[1] is not None:
        return Product(node, left[0], _names(node, left[0]), "the weight is the left operand", 0)
    return None


def _is_plain(node: ir.Node) -> bool:
    if node.domain in _STANDARD:
        return node.op_type in ("MatMul", "Gemm")
    return node.domain == "com.microsoft" and node.op_type == "FusedMatMul"


def _absorbs(node: ir.Node) -> bool:
    """True for operators that multiply by their second input among other things."""
    return node.domain == "com.microsoft" and node.op_type in _ABSORBING


def _refusal(node: ir.Node) -> str:
    """Why a node computes something else than ``x W^T + b``."""
    if _absorbs(node):
        return f"the fused operator {node.op_type} hides their output"
    changed = [
        name
        for name, plain in (
            ("transA", 0),
            ("transBatchA", 0),
            ("transBatchB", 0),
            ("alpha", 1.0),
            ("beta", 1.0),
        )
        if name in node.attributes and node.attributes[name].value != plain
    ]
    return f"their {node.op_type} has its own {', '.join(changed)}" if changed else ""


def _names(node: ir.Node, weight: ir.Value) -> tuple[str, ...]:
    names = []
    if node.name and node.name.startswith("/"):
        names.append(".".join(node.name.split("/")[1:-1]))
    for suffix in _SUFFIXES:
        if weight.name and weight.name.endswith(suffix):
            names.append(weight.name.removesuffix(suffix))
    return tuple(dict.fromkeys(name for name in names if name))


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _array(value: ir.Value | None) -> np.ndarray | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _along(values: np.ndarray, node: ir.Node, ndim: int) -> np.ndarray:
    """Per-axis values of a DequantizeLinear in a shape that broadcasts with its tensor."""
    if values.ndim != 1 or values.size == 1:
        return values.reshape([1] * ndim)
    shape = [1] * ndim
    shape[node.attributes.get_int("axis", 1) % ndim] = -1
    return values.reshape(shape)


def _dequantize(array: np.ndarray, node: ir.Node) -> np.ndarray | None:
    scale, zero = _array(node.inputs[1]), _array(node.inputs[2]) if len(node.inputs) > 2 else None
    if scale is None or scale.ndim > 1:  # blocked quantization has scales of the weight's own rank
        return None
    offset: Sequence[int] | np.ndarray = np.zeros(1) if zero is None else zero
    centred = array.astype(np.float32) - _along(np.asarray(offset, np.float32), node, array.ndim)
    return np.asarray(centred * _along(scale.astype(np.float32), node, array.ndim))
