"""What a quantised bundle stores: the products and tables whose weights are not the base's own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from eptx.bundle import Manifest
from eptx.errors import BundleError
from eptx.exporter import ops
from eptx.exporter.base._integer import integer_product
from eptx.exporter.base._nbits import is_nbits
from eptx.exporter.base._products import Product, find_products

T = TypeVar("T")

#: Half a step of float16, of a number and at least.
_HALF, _LEAST = 2.0**-11, 2.0**-25


@dataclass(frozen=True)
class StoredProduct:
    """A product whose weight is quantised.

    Attributes:
        product: where it is.
        weight: what it multiplies by, float32 [out, in].
        allowed: how far each number may be from what it should be, float32, broadcasts to [out, in].
    """

    product: Product
    weight: np.ndarray
    allowed: np.ndarray

    @property
    def name(self) -> str:
        """The module that the node is named after, in transformers' words."""
        return (self.product.node.name or "").rpartition("/")[0].strip("/").replace("/", ".")

    @property
    def in_blocks(self) -> bool:
        """Whether it is a MatMulNBits."""
        return is_nbits(self.product.node)

    @property
    def on_input(self) -> bool:
        """Whether an adapter's operator gives what it reads."""
        maker = activation(self.product).producer()
        return maker is not None and maker.domain == ops.DOMAIN


@dataclass(frozen=True)
class StoredTable:
    """A table of embeddings that is quantised.

    Attributes:
        name: of the node.
        rows: float32 [rows, width].
        allowed: how far each number may be from what it should be, broadcasts to the rows.
    """

    name: str
    rows: np.ndarray
    allowed: np.ndarray


def stored_products(manifest: Manifest, graph: ir.Graph, prefix: str) -> list[Product]:
    """The products of a graph that the manifest says are quantised, or, where it names none, that are.

    Args:
        manifest: of the bundle.
        graph: one of its graphs.
        prefix: of the names of that graph's nodes in the manifest.

    Raises:
        BundleError: a node that it names is no product.
    """
    found = find_products(graph)
    schemes = manifest.quantisation.products if manifest.quantisation is not None else {}
    if not schemes:
        return [product for product in found if is_nbits(product.node) or integer_product(product.node) is not None]
    named = {product.node.name: product for product in found}
    return [_named(named, key.removeprefix(prefix)) for key in _keys(schemes, prefix)]


def stored_tables(manifest: Manifest, graph: ir.Graph, prefix: str) -> list[ir.Node]:
    """The last nodes of the look-ups of a graph that the manifest says are quantised.

    Raises:
        BundleError: the graph has no such node.
    """
    schemes = manifest.quantisation.embeddings if manifest.quantisation is not None else {}
    nodes = {node.name: node for node in graph}
    return [_named(nodes, key.removeprefix(prefix)) for key in _keys(schemes, prefix)]


def _keys(schemes: Mapping[str, str], prefix: str) -> list[str]:
    """Those of one graph; names of the main graph's nodes have no prefix, and no colon."""
    quantised = [key for key, scheme in schemes.items() if scheme != "fp32"]
    return [key for key in quantised if (key.startswith(prefix) if prefix else ":" not in key)]


def _named(found: Mapping[str | None, T], name: str) -> T:
    if name not in found:
        raise BundleError(f"eptx.json: {name} is said to be quantised, and no such product is in the graph")
    return found[name]


def read_product(product: Product) -> StoredProduct:
    """The weight of a product.

    Raises:
        BundleError: it is stored in a way that eptx does not read.
    """
    matrix = product.matrix()
    if matrix is None:
        raise BundleError(f"{product.node.name}: its weight is quantised in a way that eptx does not read")
    weight = matrix.astype(np.float32)
    step = product.step()
    return StoredProduct(product, weight, np.asarray(step) if np.ndim(step) else _rounded(weight))


def read_table(node: ir.Node) -> StoredTable:
    """The rows of a table, int8 with a scale each, or float16.

    Raises:
        BundleError: it is stored in another way.
    """
    cast, scale = (_gathered(value) for value in (*node.inputs, None)[:2])
    if node.op_type == "Mul" and cast is not None and scale is not None:
        return StoredTable(node.name or "", cast.astype(np.float32) * scale, 0.5 * np.abs(scale))
    if node.op_type == "Cast" and cast is not None and cast.dtype == np.float16:
        rows = cast.astype(np.float32)
        return StoredTable(node.name or "", rows, _rounded(rows))
    raise BundleError(f"{node.name}: its table is quantised in a way that eptx does not read")


def activation(product: Product) -> ir.Value:
    """What a product reads, before it is quantised."""
    integers = integer_product(product.node)
    value = product.node.inputs[0] if integers is None else integers.x
    assert value is not None
    coarse = _before(_before(value, "DequantizeLinear"), "QuantizeLinear")
    return value if coarse is None else coarse


def _before(value: ir.Value | None, op_type: str) -> ir.Value | None:
    """What a node of a type has made a value of."""
    maker = None if value is None else value.producer()
    return maker.inputs[0] if maker is not None and maker.op_type == op_type else None


def _rounded(weight: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(weight) * _HALF + _LEAST)


def _gathered(value: ir.Value | None) -> np.ndarray | None:
    """The table whose rows a value is, cast or not."""
    for op_type in ("Cast", "Gather"):
        before = _before(value, op_type)
        value = value if before is None and op_type == "Cast" else before
    return None if value is None or value.const_value is None else value.const_value.numpy()
