"""Matches the quantized products and tables of a graph with the layers of the reference.

They match by the node's name, as exporters write it, or else by the weight's content. A packed projection holds
several layers. A product that matches no layer cannot be validated, and is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from eptx.errors import BundleError
from eptx.exporter.bases.names import aliases
from eptx.exporter.bases.products.content import columns_of
from eptx.exporter.trained import Host
from eptx.exporter.validation.quantized.stored import StoredProduct, StoredTable

_PACKED = "qkv_proj"


@dataclass(frozen=True)
class Place:
    """A linear layer by name, and its rows of a product's weight [out, in]."""

    linear: str
    rows: slice


def linears_of(model: Any) -> dict[str, nn.Linear]:
    """The base's linear layers by name, also those inside adapted layers."""
    found: dict[str, nn.Linear] = {}
    adapted: tuple[str, ...] = ()  # what the names of everything in an adapted layer begin with
    for name, module in model.named_modules():
        layer = getattr(module, "base_layer", module)
        if isinstance(layer, nn.Linear) and not name.startswith(adapted):
            found[name] = layer
        if layer is not module:
            adapted += (f"{name}.",)
    return found


def places_of(stored: StoredProduct, host: Host, fold: Callable[[str], np.ndarray] | None) -> list[Place]:
    """The layers whose weights a product holds.

    Args:
        stored: the product.
        host: with the base's own weights.
        fold: of a static bundle, adapted module -> its weight with the task in it.

    Raises:
        BundleError: no layer matches.
    """
    linears = linears_of(host.model)
    prefix = str(getattr(host.model, "base_model_prefix", "") or "")
    parent, _, packed = stored.name.rpartition(".")
    named = [f"{parent}.{x}_proj" for x in "qkv"] if packed == _PACKED else [stored.name]
    names = [next((alias for alias in aliases(name, prefix) if alias in linears), "") for name in named]
    out, width = stored.weight.shape
    if all(names) and sum(linears[name].out_features for name in names) == out:
        places = list(_side_by_side(names, linears))
    else:
        places = _by_content(stored, host, linears, fold)
    if not places or any(linears[place.linear].in_features != width for place in places):
        raise BundleError(f"{stored.product.node.name}: eptx cannot tell whose quantized weight this is")
    return places


def _side_by_side(names: list[str], linears: dict[str, nn.Linear]) -> Iterator[Place]:
    start = 0
    for name in names:
        stop = start + linears[name].out_features
        yield Place(name, slice(start, stop))
        start = stop


def _by_content(
    stored: StoredProduct,
    host: Host,
    linears: dict[str, nn.Linear],
    fold: Callable[[str], np.ndarray] | None,
) -> list[Place]:
    """The layers whose weights, side by side, are the product's; empty if they are not all of it."""
    modules = {name: module for module, name in host.names.items()}
    found: dict[int, Place] = {}
    for name, linear in linears.items():
        if linear.in_features != stored.weight.shape[1] or linear.out_features > stored.weight.shape[0]:
            continue
        adapted = fold is not None and name in modules
        wanted = fold(modules[name]) if adapted and fold is not None else linear.weight.detach().double().numpy()
        for start, stop in columns_of(stored.product, wanted)[:1]:
            found.setdefault(start, Place(name, slice(start, stop)))
    places = [found[start] for start in sorted(found)]
    ends = [0, *(place.rows.stop for place in places)]
    whole = [place.rows.start for place in places] == ends[:-1] and ends[-1] == stored.weight.shape[0]
    return places if whole else []


def embedding_of(table: StoredTable, model: Any, prefix: str) -> tuple[str, nn.Embedding]:
    """The embedding that a table quantizes: the nearest of its shape, on its graph's side of an encoder-decoder.

    Raises:
        BundleError: the model has none of that shape.
    """
    side = ("encoder." if prefix else "decoder.") if model.config.is_encoder_decoder else ""
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.startswith(side) and module.weight.shape == table.rows.shape
    }
    if not found:
        raise BundleError(f"{table.name}: eptx cannot tell whose quantized table this is")
    first = {name: np.abs(module.weight.detach().float().numpy() - table.rows).mean() for name, module in found.items()}
    nearest = min(first, key=lambda name: first[name])
    return nearest, found[nearest]
