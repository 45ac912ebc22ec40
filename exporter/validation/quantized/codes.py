"""Quantized weights as the graph stores them: integers, scales and zero points.

The export reads them with ``bases/products/`` (`integer.py`, `nbits.py`). Validation reads them here, with code of its
own on purpose: it does not repeat a mistake of the export.

A weight is ``(code - zero) * scale``. A scale is that of a whole matrix, of a row of [out, in], or of a block of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from eptx.exporter.bases.products.form import stored_as, walk
from eptx.exporter.bases.products.integer import integer_product
from eptx.exporter.bases.products.nbits import is_nbits
from eptx.exporter.bases.products.products import Product

#: Half a unit in the last place of a scale, by the type that it is stored in.
_ROUNDING = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


@dataclass(frozen=True)
class Codes:
    """The integers of one weight [out, in].

    Attributes:
        codes: int32 [out, in].
        scale: float32 [out or 1, blocks or 1].
        zero: float32, as `scale`.
        low: the least code that the type holds. high: the largest.
        block: how many inputs share a scale; None: all inputs of a row.
        searched: whether quantizers may search for scales of this storage (blocks) instead of computing them.
        rounding: the relative rounding of a stored scale.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    low: int
    high: int
    block: int | None
    searched: bool
    rounding: float

    @property
    def weight(self) -> np.ndarray:
        """The weight that the codes stand for, float32 [out, in]."""
        return np.asarray((self.codes - self.spread(self.zero)) * self.spread(self.scale), np.float32)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Numbers of the groups [out or 1, blocks], repeated so that they broadcast with [out, in]."""
        if self.block is None:
            return values
        return np.repeat(values, self.block, axis=1)[:, : self.codes.shape[1]]

    def grouped(self, weight: np.ndarray) -> np.ndarray:
        """A weight [out, in] in groups, [out or 1, blocks or 1, numbers]; zeros complete the last block of a row."""
        out, width = weight.shape
        if len(self.scale) == 1 and out > 1:
            return weight.reshape(1, 1, -1)
        if self.block is None:
            return weight[:, None, :]
        return np.pad(weight, ((0, 0), (0, -width % self.block))).reshape(out, -1, self.block)


def read_codes(product: Product) -> Codes | None:
    """The codes of a product's weight; None if it has none, or in a form that eptx does not read."""
    if is_nbits(product.node):
        return _of_blocks(product.node)
    integers = integer_product(product.node)
    if integers is not None:
        stored, scale = array_of(integers.weight), array_of(integers.scales.inputs[integers.scale])
        zero = array_of(integers.product.inputs[3]) if len(integers.product.inputs) > 3 else None
        return None if stored is None or scale is None else of_rows(stored.T, scale.reshape(-1), zero)
    found = walk(product.node.inputs[product.operand])
    coarse = next((node for node in found[1] if node.op_type == "DequantizeLinear"), None) if found else None
    if found is None or coarse is None:
        return None
    stored, scale = array_of(found[0]), array_of(coarse.inputs[1])
    zero = array_of(coarse.inputs[2]) if len(coarse.inputs) > 2 else None
    if stored is None or scale is None or scale.ndim > 1:
        return None
    turned = not stored_as(product.node, product.operand)
    if scale.size > 1 and (coarse.attributes.get_int("axis", 1) % 2 == 1) != turned:
        return None  # scales of input features
    return of_rows(stored.T if turned else stored, scale.reshape(-1), zero)


def of_rows(stored: np.ndarray, scale: np.ndarray, zero: np.ndarray | None) -> Codes:
    """Codes [out, in] with one scale, or with one scale per row."""
    limits, shape = np.iinfo(stored.dtype), (scale.size, 1)
    zeros = np.zeros(1, np.float32) if zero is None else zero.astype(np.float32)
    return Codes(
        codes=stored.astype(np.int32),
        scale=scale.astype(np.float32).reshape(shape),
        zero=np.broadcast_to(zeros.reshape(-1, 1), shape),
        low=int(limits.min),
        high=int(limits.max),
        block=None,
        searched=False,
        rounding=_ROUNDING.get(scale.dtype.name, 2.0**-24),
    )


def of_packed(
    packed: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, bits: int, block: int, shape: tuple[int, int]
) -> Codes:
    """Codes of a few bits, in blocks along the inputs; the first code stands in the low bits of a byte.

    Args:
        packed: uint8, all bytes of a row one after the other.
        scale: one for each block.
        zero: packed like the codes, or numbers of the scale's type; None: the middle of the codes.
        bits: of a code.
        block: inputs in a block.
        shape: [out, in].
    """
    out, width = shape
    blocks = -(-width // block)
    if zero is None:
        zeros = np.full((out, blocks), 2 ** (bits - 1), np.float32)
    elif zero.dtype == np.uint8:
        zeros = _unpacked(zero.reshape(out, -1), bits)[:, :blocks].astype(np.float32)
    else:
        zeros = zero.astype(np.float32).reshape(out, blocks)
    return Codes(
        codes=_unpacked(packed.reshape(out, -1), bits)[:, :width].astype(np.int32),
        scale=scale.astype(np.float32).reshape(out, blocks),
        zero=zeros,
        low=0,
        high=2**bits - 1,
        block=block,
        searched=True,
        rounding=_ROUNDING.get(scale.dtype.name, 2.0**-24),
    )


def _of_blocks(node: ir.Node) -> Codes | None:
    """Of MatMulNBits, as onnxruntime/docs/ContribOperators.md defines it."""
    packed, scale, zero, order = (array_of(node.inputs[i]) if i < len(node.inputs) else None for i in range(1, 5))
    bits = node.attributes["bits"].as_int()
    if packed is None or scale is None or order is not None or bits not in (2, 4, 8):
        return None
    shape = node.attributes["N"].as_int(), node.attributes["K"].as_int()
    return of_packed(packed, scale, zero, bits, node.attributes["block_size"].as_int(), shape)


def _unpacked(packed: np.ndarray, bits: int) -> np.ndarray:
    """Bytes [out, n] as codes [out, n * 8 / bits]."""
    parts = [(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(len(packed), -1)


def array_of(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer; None of other values."""
    return None if value is None or value.const_value is None else value.const_value.numpy()
