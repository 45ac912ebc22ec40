"""Finds and reads the quantized products and tables of a bundle's graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from eptx.bundle import Manifest
from eptx.errors import BundleError
from eptx.exporter.bases.products.form import walk
from eptx.exporter.bases.products.integer import integer_product
from eptx.exporter.bases.products.nbits import is_nbits
from eptx.exporter.bases.products.products import Product, find_products
from eptx.exporter.validation.quantized.codes import Codes, array_of, of_packed, of_rows, read_codes
from eptx.manifest.names import OPERATOR_DOMAIN

T = TypeVar("T")


@dataclass(frozen=True)
class StoredProduct:
    """A product whose weight is quantized.

    Attributes:
        product: where it is.
        weight: what it multiplies by, float32 [out, in].
        codes: the integers that it is stored as; None where it is float16.
    """

    product: Product
    weight: np.ndarray
    codes: Codes | None

    @property
    def name(self) -> str:
        """The module that the node is named after, as transformers calls it."""
        return (self.product.node.name or "").rpartition("/")[0].strip("/").replace("/", ".")

    @property
    def on_input(self) -> bool:
        """Whether its input comes from an adapter's operator."""
        maker = activation(self.product).producer()
        return maker is not None and maker.domain == OPERATOR_DOMAIN


@dataclass(frozen=True)
class StoredTable:
    """A table of embeddings that is quantized.

    Attributes:
        name: of the node.
        rows: float32 [rows, width].
        codes: the integers that they are stored as; None where they are float16.
    """

    name: str
    rows: np.ndarray
    codes: Codes | None


def stored_products(manifest: Manifest, graph: ir.Graph, prefix: str) -> list[Product]:
    """The quantized products of a graph: with integers as weights, or with float16 where the manifest names them.

    Args:
        manifest: of the bundle.
        graph: one of its graphs.
        prefix: of the names of that graph's nodes in the manifest.

    Raises:
        BundleError: a node that it names is no product.
    """
    found = find_products(graph)
    schemes = manifest.quantization.products if manifest.quantization is not None else {}
    named = {product.node.name: product for product in found}
    said = {id(_named(named, key.removeprefix(prefix)).node) for key in _keys(schemes, prefix)}
    return [product for product in found if id(product.node) in said or _is_integer(product)]


def _is_integer(product: Product) -> bool:
    """Whether a product's weight is stored as integers."""
    if is_nbits(product.node) or integer_product(product.node) is not None:
        return True
    path = walk(product.node.inputs[product.operand])
    return path is not None and any(node.op_type == "DequantizeLinear" for node in path[1])


def stored_tables(manifest: Manifest, graph: ir.Graph, prefix: str) -> list[ir.Node]:
    """The last nodes of look-ups in quantized tables: those that the manifest names, and those of a known form.

    Raises:
        BundleError: the graph has no node that the manifest names.
    """
    schemes = manifest.quantization.embeddings if manifest.quantization is not None else {}
    nodes = {node.name: node for node in graph}
    said = {id(_named(nodes, key.removeprefix(prefix))) for key in _keys(schemes, prefix)}
    return [node for node in graph if id(node) in said or _is_quantized_table(node)]


def _is_quantized_table(node: ir.Node) -> bool:
    """Whether it is a look-up in the form of ONNX Runtime's quantizer or of GenAI's builder."""
    if node.op_type == "GatherBlockQuantized":
        return True
    gather = producer(node.inputs[0], "Gather") if node.op_type == "DequantizeLinear" else None
    return gather is not None and array_of(gather.inputs[0]) is not None


def _keys(schemes: Mapping[str, str], prefix: str) -> list[str]:
    """The quantized nodes of one graph; nodes of the main graph have no prefix, and no colon."""
    quantized = [key for key, scheme in schemes.items() if scheme != "fp32"]
    return [key for key in quantized if (key.startswith(prefix) if prefix else ":" not in key)]


def _named(found: Mapping[str | None, T], name: str) -> T:
    if name not in found:
        raise BundleError(f"eptx.json: {name} is said to be quantized, and no such product is in the graph")
    return found[name]


def read_product(product: Product) -> StoredProduct:
    """The weight of a product.

    Raises:
        BundleError: eptx does not read its form.
    """
    codes = read_codes(product)
    matrix = product.matrix() if codes is None and not _is_integer(product) else None
    if codes is None and (matrix is None or matrix.dtype != np.float16):
        raise BundleError(f"{product.node.name}: its weight is quantized in a way that eptx does not read")
    return StoredProduct(product, codes.weight if codes is not None else matrix.astype(np.float32), codes)  # type: ignore[union-attr]


def read_table(node: ir.Node) -> StoredTable:
    """The rows of a table: int8 with a scale each, of one scale, in blocks of 4 bits, or float16.

    Raises:
        BundleError: eptx does not read its form.
    """
    name = node.name or ""
    codes = _quantized_table(node)
    if codes is not None:
        return StoredTable(name, codes.weight, codes)
    cast, scale = (_gathered(value) for value in (*node.inputs, None)[:2])
    if node.op_type == "Mul" and cast is not None and scale is not None:
        codes = of_rows(cast, scale.reshape(-1), None)
        return StoredTable(name, codes.weight, codes)
    if node.op_type == "Cast" and cast is not None and cast.dtype == np.float16:
        return StoredTable(name, cast.astype(np.float32), None)
    raise BundleError(f"{node.name}: its table is quantized in a way that eptx does not read")


def _quantized_table(node: ir.Node) -> Codes | None:
    """The codes of a table that ONNX Runtime's quantizer or GenAI's builder quantized."""
    arrays = [_whole(value) for value in node.inputs]
    if node.op_type == "DequantizeLinear":
        stored, scale = _gathered(node.inputs[0]), arrays[1]
        zero = arrays[2] if len(arrays) > 2 else None
        one = stored is not None and scale is not None and scale.size == 1
        return of_rows(stored, scale.reshape(-1), zero) if one else None  # type: ignore[arg-type,union-attr]
    if node.op_type != "GatherBlockQuantized" or arrays[0] is None or arrays[2] is None:
        return None
    packed, scale, zero = arrays[0], arrays[2], arrays[3] if len(arrays) > 3 else None
    bits, block = node.attributes.get_int("bits", 4), node.attributes.get_int("block_size", 128)
    if packed.dtype != np.uint8 or node.attributes.get_int("gather_axis", 0) != 0:
        return None
    return of_packed(packed, scale, zero, bits, block, (len(packed), packed[0].size * 8 // bits))


def activation(product: Product) -> ir.Value:
    """A product's input before it is quantized."""
    integers = integer_product(product.node)
    value = product.node.inputs[0] if integers is None else integers.x
    assert value is not None
    coarse = _before(_before(value, "DequantizeLinear"), "QuantizeLinear")
    return value if coarse is None else coarse


def _before(value: ir.Value | None, op_type: str) -> ir.Value | None:
    """The first input of a value's producer, if that is of a type."""
    maker = producer(value, op_type)
    return None if maker is None else maker.inputs[0]


def producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that gives a value, if it is of a type."""
    maker = None if value is None else value.producer()
    return maker if maker is not None and maker.op_type == op_type else None


def _whole(value: ir.Value | None) -> np.ndarray | None:
    """An initializer's array, before a Reshape."""
    before = _before(value, "Reshape")
    return array_of(value if before is None else before)


def _gathered(value: ir.Value | None) -> np.ndarray | None:
    """The table whose rows a value holds, before a Cast."""
    for op_type in ("Cast", "Gather"):
        before = _before(value, op_type)
        value = value if before is None and op_type == "Cast" else before
    return None if value is None or value.const_value is None else value.const_value.numpy()
