"""Quantizing a base again, whose float weights are not at hand: what a bundle holds of it is taken as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import onnx_ir as ir

from eptx.bundle import Quantization
from eptx.calibration.quantize.embedding_table import stored_names
from eptx.calibration.quantize.layers import key_of
from eptx.calibration.quantize.quantizer import Quantizer, Recipe, Scheme
from eptx.calibration.quantize.splice import cut
from eptx.errors import BundleError, NotSupportedError
from eptx.exporter.bundle.write import Adapted
from eptx.exporter.graph.edited import EditedGraph
from eptx.exporter.options import StoredPrecision
from eptx.exporter.steps.former import AGAIN, Former

#: Schemes that no data decides on.
_SCHEMES = ("fp32", "int8", "int8-blocks", "int4-blocks")


def quantize_again(former: Former, adapted: Adapted) -> Adapted:
    """Stores a base in adapted graphs as the bundle stores it that the graphs are of.

    Args:
        former: the bundle.
        adapted: its graphs with other tasks, zeros where the bundle has quantized weights; changed in place.

    Raises:
        NotSupportedError: data decided how the bundle stores its weights.
    """
    quantization = former.bundle.manifest.quantization
    if quantization is None:
        return adapted
    measured = {*quantization.products.values()} - {*_SCHEMES} or quantization.metrics or quantization.budget
    if measured:
        raise NotSupportedError(
            f"{former.bundle.path.name} was quantized by what its tasks' data says, and other tasks have other data: "
            f"{AGAIN}"
        )
    for edited, model in zip(adapted.graphs, former.models, strict=True):
        _quantize(edited, model.graph, quantization)
    return replace(adapted, quantization=quantization, precision=cast(StoredPrecision, former.record.precision))


def _quantize(edited: EditedGraph, stored: ir.Graph, quantization: Quantization) -> None:
    """Quantizes a graph: products as the stored graph has them, tables by zeros first."""
    graph, quantizer = edited.graph.model.graph, Quantizer()
    products = {name: _scheme(quantization.products, edited, name) for name in edited.products}
    tables = {name: _scheme(quantization.embeddings, edited, name) for name in edited.embeddings}
    for name, scheme in products.items():
        if scheme != "fp32":
            product = cut(stored, name)
            if product is None:
                raise BundleError(f"{edited.graph.file}: has no product {name} in {scheme}, as eptx.json says")
            quantizer.take(name, scheme, product)
    quantizer(graph, Recipe(products, tables))
    for name in tables:
        for constant in stored_names(name):
            if constant in graph.initializers and constant in stored.initializers:
                graph.initializers[constant].const_value = stored.initializers[constant].const_value


def _scheme(schemes: Mapping[str, str], edited: EditedGraph, name: str) -> Scheme:
    key = key_of(edited.graph, name)
    if key not in schemes:
        raise BundleError(f"eptx.json: does not say how {key} is stored")
    return cast(Scheme, schemes[key])
