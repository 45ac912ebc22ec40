"""Graphs that their user has quantized with ONNX Runtime: what of them is read, and such a bundle's precision."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from eptx.errors import NotSupportedError
from eptx.exporter.bases.products.form import walk
from eptx.exporter.bases.products.integer import integer_product
from eptx.exporter.bases.products.products import find_products

_WHAT_TO_DO = "quantize products alone (op_types_to_quantize=['MatMul']), or give the base unquantized"


def check_coarse(file: str, graph: ir.Graph) -> None:
    """Refuses a graph that stores more in integers than the weights of products: biases and norms, say.

    Nothing says how far those may be off, so they could be anything, and nobody could tell.

    Args:
        file: its name.
        graph: of the base.

    Raises:
        NotSupportedError: by the name of the weight.
    """
    known = {id(product.coarse) for product in find_products(graph)}
    for node in graph:
        if node.op_type != "DequantizeLinear" or id(node) in known:
            continue
        found = walk(node.inputs[0])
        if found is not None:
            raise NotSupportedError(f"{file}: {found[0].name} is quantized, and is no product's weight; {_WHAT_TO_DO}")


def own_precision(graphs: Sequence[ir.Graph]) -> str | None:
    """The precision of graphs that were quantized before they were adapted; None of those that were not."""
    products = [product for graph in graphs for product in find_products(graph)]
    coarse = [product for product in products if product.coarse is not None]
    if any(_is_rounded(product.node.inputs[1 - product.operand]) for product in coarse):
        return "int8-static"
    return "int8" if coarse or any(integer_product(product.node) for product in products) else None


def _is_rounded(value: ir.Value | None) -> bool:
    """Whether an activation is rounded to steps that the graph holds."""
    maker = None if value is None else value.producer()
    return maker is not None and maker.op_type == "DequantizeLinear"
