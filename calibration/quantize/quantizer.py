"""Quantizes the products and tables of a graph by a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from eptx.calibration.quantize import one_product
from eptx.calibration.quantize.embedding_table import halve_rows, store_rows
from eptx.calibration.quantize.splice import as_matmul, drop_unused, halve, splice
from eptx.errors import LimitError
from eptx.exporter.bases.products.products import Product, find_products

Scheme = Literal["fp32", "fp16", "int8", "int8-static", "int8-blocks", "int4-blocks", "int4"]

#: Inputs per block: ONNX Runtime's CPU kernels are fastest at 128 for 8 bits and most exact at 32 for 4.
_BLOCKS = {"int8-blocks": (8, 128), "int4-blocks": (4, 32)}
_FP16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Range:
    """The values that an activation takes, float32."""

    low: float
    high: float


@dataclass(frozen=True)
class Recipe:
    """How each product and table of one graph is stored.

    Attributes:
        products: node name -> scheme; a product without one stays as it is.
        embeddings: node name -> scheme of its table: "int8", "fp16" or "fp32".
        ranges: node name -> range of its input, for the scheme "int8-static".
    """

    products: Mapping[str, Scheme]
    embeddings: Mapping[str, Scheme] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)


class Quantizer:
    """Quantizes graphs of one base; each product is quantized once per scheme and reused."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Scheme, Range | None], ir.Model] = {}

    def take(self, name: str, scheme: Scheme, product: ir.Model) -> None:
        """Has a product be stored as one that is quantized already, as `quantized` makes it."""
        self._known[name, scheme, None] = product

    def __call__(self, graph: ir.Graph, recipe: Recipe) -> None:
        """Stores products and tables as the recipe says.

        Args:
            graph: changed in place.
            recipe: its names are those of the graph's nodes.

        Raises:
            LimitError: a weight is too large for float16.
        """
        products = {product.node.name: product for product in find_products(graph)}
        for name, scheme in recipe.products.items():
            if scheme != "fp32":
                self._store(graph, products[name], scheme, recipe.ranges.get(name))
        nodes = {node.name: node for node in graph}
        for name, scheme in recipe.embeddings.items():
            if scheme in ("int8", "fp16"):
                (store_rows if scheme == "int8" else halve_rows)(graph, nodes[name])
        drop_unused(graph)

    def _store(self, graph: ir.Graph, product: Product, scheme: Scheme, bounds: Range | None) -> None:
        name = product.node.name
        assert name is not None
        matrix = product.matrix()
        assert matrix is not None
        weight = matrix.T
        node = as_matmul(graph, product)
        if scheme == "fp16":
            if np.abs(weight).max() > _FP16_MAX:
                raise LimitError(f"{name} has a weight past float16's {_FP16_MAX:.5g}: use --precision fp32")
            halve(graph, node, weight)
            return
        key = name, scheme, bounds
        if key not in self._known:
            self._known[key] = quantized(weight, scheme, bounds)
        splice(graph, node, self._known[key])


def quantized(weight: np.ndarray, scheme: Scheme, bounds: Range | None = None) -> ir.Model:
    """One product ``y = x W`` under a scheme; the weight is [in, out]."""
    quantizers: dict[str, Callable[[], ir.Model]] = {
        "int8": lambda: one_product.dynamic_int8(weight),
        "int8-static": lambda: one_product.static_int8(weight, *_bounds(bounds)),
        "int8-blocks": lambda: one_product.blocks(weight, *_BLOCKS["int8-blocks"]),
        "int4-blocks": lambda: one_product.blocks(weight, *_BLOCKS["int4-blocks"]),
    }
    return quantizers[scheme]()


def _bounds(bounds: Range | None) -> tuple[float, float]:
    assert bounds is not None, "int8-static needs an observed range"
    return bounds.low, bounds.high
