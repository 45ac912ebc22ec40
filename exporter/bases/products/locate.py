"""Where the adapted modules are in a base graph.

A module is looked for, in this order, in the user's map, in the graph's own names (node names made by an
exporter, initializer names) and in the weights' contents, and whatever names say is checked against the base
folder's weights where there are any. A module that is not found, or found twice, is an error: an export never
leaves a module unadapted in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from eptx._one_line import some
from eptx.errors import BaseModelError, UsageError
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.names import aliases, same_module
from eptx.exporter.bases.products.content import columns_of, equal_at
from eptx.exporter.bases.products.products import Product, find_products
from eptx.exporter.bases.products.site import Site, UnusedCall
from eptx.exporter.bases.weights.checkpoint import BaseCheckpoint, has_weights
from eptx.exporter.bases.weights.renames import renamed_tensors

__all__ = ["locate", "named_sites"]

_OTHER = {"query_proj": "key_proj", "key_proj": "query_proj"}
_QUANTIZED = ("MatMulInteger", "MatMulNBits", "QLinearMatMul", "QGemm", "QAttention", "DynamicQuantizeMatMul")
#: Of a graph that holds its weights as floats.
_UNUSED = ", because no output needs them, or they are no products of matrices; leave them out of target_modules"
_COLUMNS = re.compile(r"(.+)\[(\d{1,9}):(\d{1,9})\]")


def locate(graph: BaseGraph, modules: Sequence[str], *, module_map: Mapping[str, str] | None = None) -> dict[str, Site]:
    """Finds the product of every module.

    Args:
        graph: the base; its folder, if it has one, gives the weights to compare with.
        modules: names as the adapter has them, without ``base_model.model.``, with or without the base's
            prefix.
        module_map: module -> name of its node or weight in the graph, with ``[start:stop]`` behind it when
            the module is only these output columns.

    Returns:
        module -> site, in the order of ``modules``.

    Raises:
        BaseModelError: a module is not found, found more than once, has other weights than the base folder's,
            or is a product that cannot be adapted. The names are listed.
        UsageError: the map names a module that the adapter does not have.
    """
    finder = _Finder(graph, module_map or {})
    unknown = sorted(set(module_map or {}) - set(modules))
    if unknown:
        raise UsageError(f"--module-map names modules that the adapter does not adapt: {some(unknown)}")
    sites: dict[str, Site] = {}
    failures: dict[str, list[str]] = {}
    for module in modules:
        try:
            sites[module] = finder.find(module)
        except _Failure as failure:
            failures.setdefault(str(failure), []).append(module)
    for reason, names in failures.items():
        raise BaseModelError(f"{len(names)} of {len(modules)} adapted modules {reason}: {some(names)}")
    _refuse_overlaps(sites)
    return sites


def named_sites(graph: BaseGraph, modules: Sequence[str]) -> dict[str, Site]:
    """The products of those modules that the graph's own names, and its places, find without its folder."""
    finder = _Finder(replace(graph, folder=None), {})
    found = {}
    for module in modules:
        with suppress(_Failure):
            found[module] = finder.find(module)
    return found


class _Failure(Exception):
    """Why one module has no site."""


class _Finder:
    """Looks modules up in one graph."""

    def __init__(self, graph: BaseGraph, module_map: Mapping[str, str]) -> None:
        self._prefix = graph.prefix
        self._config = graph.config
        self._map = module_map
        self._known = graph.places
        self._products = find_products(graph.model.graph)
        self._folder = graph.folder if graph.folder is not None and has_weights(graph.folder) else None
        self._checkpoint = BaseCheckpoint(self._folder) if self._folder is not None else None
        self._renamed: dict[str, str] | None = None
        operators = sorted({node.op_type for node in graph.model.graph if node.op_type in _QUANTIZED})
        self._quantized = f", which is quantized ({', '.join(operators)}); give it unquantized" if operators else ""

    def find(self, module: str) -> Site:
        """The module's site, checked."""
        weight = self._weight(module)
        try:
            places = self._places(module, weight)
        except _Failure as failure:
            if weight is None:
                raise
            try:
                places = self._places(module, weight.T)  # transformers' Conv1D is a linear that stores [in, out]
            except _Failure:
                raise failure from None
        for product, _ in places:
            if product.refusal:
                raise _Failure(f"cannot be adapted in this graph ({product.refusal}); export the base without fusions")
        sites = [Site(module, product.node, columns) for product, columns in places]
        # DeBERTa-v2's modules that also project the relative positions are, first of all, those of the text
        sites.sort(key=lambda site: site.fixed_input)
        if len(sites) == 1 and _projects_positions(module, self._config):
            raise _Failure(
                "also project relative positions, which this graph has folded away; export the folder instead"
            )
        return Site(module, sites[0].node, sites[0].columns, tuple(sites[1:]), self._unused(module))

    def _places(self, module: str, weight: np.ndarray | None) -> list[_Place]:
        """Where the module is, if its weight is [out, in]."""
        if module in self._map:
            return self._mapped(self._map[module], weight)
        if known := [alias for alias in aliases(module, self._prefix) if alias in self._known]:
            return self._mapped(self._known[known[0]], weight)
        return self._named(module, weight) or self._alike(module, weight)

    def _unused(self, module: str) -> tuple[UnusedCall, ...] | None:
        """DeBERTa-v2 projects its positions by query and key whatever the scores take of them, the query first."""
        other = _OTHER.get(module.rpartition(".")[2])
        if other is None or _projects_positions(module, self._config):
            return ()
        pair = f"{module.rpartition('.')[0]}.{other}"
        if not _projects_positions(pair, self._config):
            return ()
        try:
            site = self.find(pair)
        except _Failure:
            return None
        return tuple(
            UnusedCall(place.x, place.node, other == "key_proj") for place in (site, *site.also) if place.fixed_input
        )

    def _weight(self, module: str) -> np.ndarray | None:
        """What the base folder holds for the module, by its name, today's or that of the folder's day."""
        if self._checkpoint is None:
            return None
        for name in self._synonyms(module):
            for key in (f"{alias}.weight" for alias in aliases(name, self._prefix)):
                if key in self._checkpoint and len(self._checkpoint.shape(key)) == 2:
                    return self._checkpoint.array(key)
        return None

    def _synonyms(self, module: str) -> Iterator[str]:
        """The module's name, then what other versions of transformers call it."""
        yield module
        if self._checkpoint is None or self._folder is None:
            return
        if self._renamed is None:
            today = renamed_tensors(self._folder, self._checkpoint)
            self._renamed = today | {old: new for new, old in today.items()}
        for alias in aliases(module, self._prefix):
            if f"{alias}.weight" in self._renamed:
                yield self._renamed[f"{alias}.weight"].removesuffix(".weight")

    def _mapped(self, target: str, weight: np.ndarray | None) -> list[_Place]:
        columns = None
        found = self._by_label(target)
        if not found and (match := _COLUMNS.fullmatch(target)):
            found, columns = self._by_label(match[1]), (int(match[2]), int(match[3]))
        if len(found) != 1:
            raise _Failure(f"are mapped to {'no' if not found else 'more than one'} product of the graph")
        product = found[0]
        columns = columns or (0, product.shape[1])
        if not 0 <= columns[0] < columns[1] <= product.shape[1]:
            raise _Failure("are mapped to columns that the product does not have")
        if weight is not None and not _holds(product, weight, columns):
            raise _Failure("are mapped to a product whose weights are not the base folder's")
        return [(product, columns)]

    def _by_label(self, label: str) -> list[Product]:
        return [product for product in self._products if label in (product.node.name, product.weight.name)]

    def _named(self, module: str, weight: np.ndarray | None) -> list[_Place]:
        """By the graph's names; empty if they name no product, or another weight than the base folder's."""
        named = self._called(module)
        places = [(product, (0, product.shape[1])) for product in named]
        if weight is not None:
            return places if all(_holds(product, weight, columns) for product, columns in places) else []
        if len({product.weight for product in named}) > 1 and not _all_equal(named):
            raise _Failure(
                "are found more than once in the base graph, with different weights; name each with --module-map"
            )
        return places

    def _called(self, module: str) -> list[Product]:
        """The products that bear the module's name; a node's name counts before its weight's."""
        for name in self._synonyms(module):
            for first in (True, False):
                named = [p for p in self._products if self._bears(p.names[:1] if first else p.names[1:], name)]
                if named:
                    return named
        return []

    def _bears(self, names: Sequence[str], module: str) -> bool:
        return any(same_module(name, module, self._prefix) for name in names)

    def _alike(self, module: str, weight: np.ndarray | None) -> list[_Place]:
        """By the weight's content."""
        if weight is None:
            alone = " by name; give its transformers folder as well, or --module-map"
            hint = self._quantized or ("" if self._checkpoint is not None else alone)
            raise _Failure(f"are not found in the base graph{hint}")
        places = self._with_content(weight) or self._with_content(weight.T)
        if len(places) > 1:
            raise _Failure("match more than one product of the base graph (equal weights); name each with --module-map")
        if not places and self._called(module):
            raise _Failure("have other weights in the base graph than in the base folder; give the graph's own folder")
        if not places:
            raise _Failure(f"are not found in the base graph{self._quantized or _UNUSED}")
        return places

    def _with_content(self, weight: np.ndarray) -> list[_Place]:
        return [(product, columns) for product in self._products for columns in columns_of(product, weight)]


_Place = tuple[Product, tuple[int, int]]


def _projects_positions(module: str, config: Mapping[str, Any]) -> bool:
    """Whether a DeBERTa-v2 module projects the relative positions besides the text (``share_att_key``)."""
    if config.get("model_type") != "deberta-v2" or not (
        config.get("share_att_key") and config.get("relative_attention")
    ):
        return False
    kinds = config.get("pos_att_type") or ()
    return ("p2c" in kinds and module.endswith("query_proj")) or ("c2p" in kinds and module.endswith("key_proj"))


def _holds(product: Product, weight: np.ndarray, columns: tuple[int, int]) -> bool:
    """Whether these columns are the weight [out, in], or, as GPT-2 stores its own, [in, out].

    True when the graph's weights cannot be read.
    """
    fits = [each for each in (weight, weight.T) if each.shape == (columns[1] - columns[0], product.shape[0])]
    return any(product.matrix() is None or equal_at(product, each, columns[0]) for each in fits)


def _all_equal(products: Sequence[Product]) -> bool:
    first = products[0].matrix()
    others = [product.matrix() for product in products[1:]]
    return first is not None and all(other is not None and np.array_equal(first, other) for other in others)


def _refuse_overlaps(sites: Mapping[str, Site]) -> None:
    """Two modules cannot be the same numbers."""
    taken: dict[ir.Node, list[tuple[int, int, str]]] = {}
    for module, site in sites.items():
        for place in (site, *site.also):
            start, stop = place.columns
            for other_start, other_stop, other in taken.setdefault(place.node, []):
                if start < other_stop and other_start < stop:
                    problem = f"{other} and {module} are one product of the base graph"
                    raise BaseModelError(f"{problem}; say with --module-map which columns are whose")
            taken[place.node].append((start, stop, module))
