"""The layers that are quantized or kept together: single products, or whole blocks in a model with many products."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from eptx.exporter.bases import BaseGraph
from eptx.exporter.bases.products.embeddings import table_of
from eptx.exporter.bases.products.products import find_products
from eptx.exporter.graph.edited import EditedGraph

#: A model with more products is measured block by block: each layer costs a session and a run over the rows.
_MOST = 64
_BLOCK = re.compile(r"(.*?\.\d+)\.")


@dataclass(frozen=True)
class Layer:
    """Products and tables that are stored alike.

    Attributes:
        name: of the module, the block or the table.
        products: keys of products. embeddings: keys of tables.
        weights: how many numbers they hold.
    """

    name: str
    products: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    weights: int = 0


def key_of(graph: BaseGraph, node: str) -> str:
    """The name of a node among all graphs of a base."""
    stem = graph.file.removesuffix(".onnx")
    return node if stem == "model" else f"{stem}:{node}"


def find_layers(graphs: Sequence[EditedGraph]) -> list[Layer]:
    """The layers of all graphs, in their order; tables first."""
    products: dict[str, tuple[str, int]] = {}
    tables: list[Layer] = []
    for edited in graphs:
        graph = edited.graph.model.graph
        sizes = {p.node.name or "": p.shape[0] * p.shape[1] for p in find_products(graph)}
        nodes = {node.name: node for node in graph}
        for name in edited.embeddings:
            label, size = key_of(edited.graph, _table_name(nodes[name])), table_of(nodes[name]).size
            tables.append(Layer(label, (), (key_of(edited.graph, name),), size))
        for name in edited.products:
            products[key_of(edited.graph, name)] = key_of(edited.graph, _module(name)), sizes[name]
    by_block = len(products) > _MOST
    found: dict[str, Layer] = {}
    for key, (module, size) in products.items():
        name = block[1] if by_block and (block := _BLOCK.match(module)) else module
        old = found.get(name, Layer(name))
        found[name] = Layer(name, (*old.products, key), (), old.weights + size)
    return [*tables, *found.values()]


def _table_name(node: ir.Node) -> str:
    """The table's name; where the table is also a product's weight, the node's name."""
    table = node.inputs[0]
    assert table is not None
    name = table.name if table.is_initializer() else node.name
    return _module(name or "embeddings").removesuffix(".weight")


def _module(node: str) -> str:
    """``/encoder.layer.0.attention.self.query/MatMul`` as ``encoder.layer.0.attention.self.query``."""
    path = node.rpartition("/")[0] if node.startswith("/") else node
    return path.strip("/").replace("/", ".") or node
