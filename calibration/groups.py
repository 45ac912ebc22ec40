"""What is quantized or kept together: products one by one, or, where there are very many, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from eptx.exporter.bases import BaseGraph
from eptx.exporter.bases.products.embeddings import table_of
from eptx.exporter.bases.products.products import find_products
from eptx.exporter.graph.edited import EditedGraph

#: More products than this are taken by layers: each costs a session and a run over the rows.
_MOST = 64
_LAYER = re.compile(r"(.*?\.\d+)\.")


@dataclass(frozen=True)
class Group:
    """Products and tables that are stored alike.

    Attributes:
        name: of the module, the layer or the table.
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


def groups_of(parts: Sequence[EditedGraph]) -> list[Group]:
    """The groups of all graphs, in their order; tables first."""
    products: dict[str, tuple[str, int]] = {}
    tables: list[Group] = []
    for part in parts:
        graph = part.graph.model.graph
        sizes = {p.node.name or "": p.shape[0] * p.shape[1] for p in find_products(graph)}
        nodes = {node.name: node for node in graph}
        for name in part.embeddings:
            label = _table_name(nodes[name])
            size = table_of(nodes[name]).size
            tables.append(Group(_prefixed(part, label), (), (key_of(part.graph, name),), size))
        products |= {key_of(part.graph, name): (_prefixed(part, _module(name)), sizes[name]) for name in part.products}
    by_layer = len(products) > _MOST
    found: dict[str, Group] = {}
    for key, (module, size) in products.items():
        name = layer[1] if by_layer and (layer := _LAYER.match(module)) else module
        old = found.get(name, Group(name))
        found[name] = Group(name, (*old.products, key), (), old.weights + size)
    return [*tables, *found.values()]


def _prefixed(part: EditedGraph, name: str) -> str:
    return key_of(part.graph, name)


def _table_name(node: ir.Node) -> str:
    """What the table is called; one that is a product's weight is called after the node."""
    table = node.inputs[0]
    assert table is not None
    name = table.name if table.is_initializer() else node.name
    return _module(name or "embeddings").removesuffix(".weight")


def _module(node: str) -> str:
    """``/encoder.layer.0.attention.self.query/MatMul`` as ``encoder.layer.0.attention.self.query``."""
    path = node.rpartition("/")[0] if node.startswith("/") else node
    return path.strip("/").replace("/", ".") or node
