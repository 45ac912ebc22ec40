"""A bundle whose weights are quantized: the reference multiplies by the same weights.

Otherwise the quantization's error, a thousand times rounding, would be held against the adapter. That the weights are
the base's (of a static bundle, the base's with one task in them, as the released forward has it) is checked apart:
scales, zero points and codes must be what the scheme's rule makes of those weights (`quantized.rule`), and of a task's
update, far smaller than a step at most places, all must be there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from eptx.bundle import Bundle
from eptx.exporter.precision import QUANTIZED
from eptx.exporter.trained import Host
from eptx.exporter.validation.check import Part
from eptx.exporter.validation.distance import LIMIT
from eptx.exporter.validation.quantized.rule import Fault, fault
from eptx.exporter.validation.quantized.stored import (
    StoredProduct,
    StoredTable,
    read_product,
    read_table,
    stored_products,
    stored_tables,
)
from eptx.exporter.validation.quantized.weight_matching import Place, embedding_of, linears_of, places_of

#: Half a unit in the last place of float16, of a number and at least; and rounding of what is compared.
_HALF, _LEAST, _MOST = 2.0**-11, 2.0**-25, 1.01
#: Rounding of a float32 weight.
_FLOAT32 = 2.0**-24

#: Adapted module -> the weight that it should amount to in a static bundle, float64 [out, in].
Fold = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class _Owned:
    """A linear layer and the part of a product that is its."""

    place: Place
    linear: nn.Linear
    stored: StoredProduct

    @property
    def weight(self) -> np.ndarray:
        """What the bundle multiplies by, float32 [out, in]."""
        return self.stored.weight[self.place.rows]


class Quantized:
    """The quantized weights of a bundle.

    Attributes:
        wrong: linear layer or table -> how its weight is not what it should be.
        effects: adapted module of a static bundle -> by how many deviations of what the quantizer's error makes of it
            the share of its task's update that is there would be off, if none of it were.
        parts: every quantized weight and table, once `compare` has seen it.
    """

    def __init__(self, bundle: Bundle) -> None:
        manifest, encoder = bundle.manifest, bundle.manifest.encoder
        files = {"": bundle.model} if encoder is None else {"encoder:": bundle.path / encoder.file, "": bundle.model}
        self._models = {prefix: ir.load(path.absolute()) for prefix, path in files.items()}
        graphs = {prefix: model.graph for prefix, model in self._models.items()}
        self._products = [
            product for prefix, graph in graphs.items() for product in stored_products(manifest, graph, prefix)
        ]
        self._tables = [
            (prefix, node) for prefix, graph in graphs.items() for node in stored_tables(manifest, graph, prefix)
        ]
        self._after_adapter = manifest.quantization is not None and bool(manifest.quantization.products)
        self._places: dict[int, list[Place]] = {}
        self.wrong: dict[str, str] = {}
        self.effects: dict[str, float] = {}
        self.parts: list[Part] = []

    @classmethod
    def of(cls, bundle: Bundle) -> Quantized | None:
        """The weights of a bundle, None if they are not quantized."""
        return cls(bundle) if bundle.manifest.precision in QUANTIZED else None

    def compare(self, reference: Host, fold: Fold | None) -> None:
        """Holds every stored weight to what its scheme's rule makes of the base's."""
        modules = {name: module for module, name in reference.names.items()}
        for owned in self._by_product(reference, fold):
            adapted = [modules.get(one.place.linear) if fold is not None else None for one in owned]
            bases = [one.linear.weight.detach().double().numpy() for one in owned]
            wanted = [
                fold(module) if fold is not None and module is not None else base
                for module, base in zip(adapted, bases, strict=True)
            ]
            found = _fault(owned[0].stored, np.concatenate(wanted) if len(wanted) > 1 else wanted[0])
            for one, module, base, own in zip(owned, adapted, bases, wanted, strict=True):
                name = modules.get(one.place.linear, one.place.linear)
                mine = found is not None and one.place.rows.start <= found.row < one.place.rows.stop
                if found is not None and mine:
                    self.wrong[name] = f"its quantized weight: {found.said}"
                elif module is not None:
                    self._look_for(module, own - base, one.weight - own)
                self.parts.append(Part(f"{name}.weight", "compared", self.wrong.get(name)))
        for table, name, embedding in self._owned_tables(reference):
            found = _fault(table, embedding.weight.detach().double().numpy(), "row")
            if found is not None:
                self.wrong[name] = f"its quantized table: {found.said}"
            self.parts.append(Part(f"{name}.weight", "compared", self.wrong.get(name)))

    def _look_for(self, module: str, update: np.ndarray, error: np.ndarray) -> None:
        """Whether all of an update is there: the quantizer's error knows nothing of it, so its share in it is noise."""
        size = float(np.square(update).sum())
        if size == 0.0:
            return
        deviation = float(np.sqrt(np.square(error).mean() / size))
        self.effects[module] = 1.0 / max(deviation, 1e-30)
        share = 1.0 + float((error * update).sum()) / size
        if abs(share - 1.0) > LIMIT * deviation:
            self.wrong[module] = f"its weight holds {share:.3g} times the task's update"

    def put_in(self, reference: Host, fold: Fold | None) -> None:
        """Has the reference multiply by these weights; of a static bundle, by what the others are folded to."""
        model = reference.model
        modules = {name: module for module, name in reference.names.items()}
        for table, _, embedding in self._owned_tables(reference):
            embedding.weight = _parameter(table.rows, embedding.weight)
        for owned in self._owned(reference, fold):
            name, old = owned.place.linear, owned.linear.weight
            owned.linear.weight = _parameter(owned.weight, old)
            if self._after_adapter and not owned.stored.on_input and name in modules:
                reference.method.update_by(model.get_submodule(name), old)
            modules.pop(name, None)
        if fold is not None:
            self._fold_others(reference, fold, modules)
            for name in reference.names.values():
                _take_off(model.get_submodule(name))

    def _fold_others(self, reference: Host, fold: Fold, modules: dict[str, str]) -> None:
        linears = linears_of(reference.model)
        for name, module in modules.items():
            old, wanted = linears[name].weight, fold(module)
            update = float(np.abs(wanted - old.detach().double().numpy()).max())
            self.effects.setdefault(module, update / max(_FLOAT32 * float(np.abs(wanted).max()), 1e-30))
            linears[name].weight = _parameter(wanted, old)

    def _owned(self, reference: Host, fold: Fold | None) -> Iterator[_Owned]:
        """Every linear layer that is quantized, with its weight; one whose product runs twice comes twice."""
        for owned in self._by_product(reference, fold):
            yield from owned

    def _by_product(self, reference: Host, fold: Fold | None) -> Iterator[list[_Owned]]:
        """For every product the layers that it holds, side by side: a scale may be that of all of them."""
        linears = linears_of(reference.model)
        for index, product in enumerate(self._products):
            stored = read_product(product)
            if index not in self._places:
                self._places[index] = places_of(stored, reference, fold)
            yield [_Owned(place, linears[place.linear], stored) for place in self._places[index]]

    def _owned_tables(self, reference: Host) -> Iterator[tuple[StoredTable, str, nn.Embedding]]:
        for prefix, node in self._tables:
            table = read_table(node)
            yield table, *embedding_of(table, reference.model, prefix)


def _take_off(layer: Any) -> None:
    """Has an adapted layer multiply by its base's weight, in which the adapter is already."""
    layer.forward = lambda x, *args, **kwargs: layer.base_layer(x)


def _fault(stored: StoredProduct | StoredTable, wanted: np.ndarray, row: str = "output feature") -> Fault | None:
    """Where a weight is not what its scheme makes of another."""
    if stored.codes is not None:
        return fault(stored.codes, wanted, row)
    found = stored.weight if isinstance(stored, StoredProduct) else stored.rows
    far = np.abs(found - wanted) > _MOST * (_HALF * np.abs(wanted) + _LEAST)
    if not far.any():
        return None
    at = tuple(np.argwhere(far)[0].tolist())
    return Fault(at[0], f"{row} {at[0]}, input {at[1]}: is {found[at]:.6g} in float16 and should be {wanted[at]:.6g}")


def _parameter(array: np.ndarray, like: torch.Tensor) -> Any:
    return nn.Parameter(torch.from_numpy(np.ascontiguousarray(array)).to(like.dtype), requires_grad=False)
