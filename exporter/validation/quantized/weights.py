"""The quantized weights of a bundle: checked against the base's, and put into the reference.

The reference multiplies by the bundle's own weights. Otherwise the quantizer's error, a thousand times rounding, would
hide the adapter. Whether those weights are the base's is a check of its own: scales, zero points and codes must follow
a rule of quantizers (`quantized.rule`). In a static bundle one task is folded into the weights before; its update is
far smaller than a step at most places, but all of it must be there.
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
from eptx.exporter.trained import Host
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
from eptx.manifest.names import FLOAT_PRECISIONS
from eptx.runtime.validation.check import Check
from eptx.runtime.validation.distance import LIMIT

#: Rounding to float16: half a unit in the last place, relative and at least; and the tolerance on top of it.
_HALF, _LEAST, _MOST = 2.0**-11, 2.0**-25, 1.01
#: Rounding of a float32 weight.
_FLOAT32 = 2.0**-24

#: Adapted module -> its weight in a static bundle, with the task folded in, float64 [out, in].
Fold = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class _Owned:
    """A linear layer and its part of a product."""

    place: Place
    linear: nn.Linear
    stored: StoredProduct

    @property
    def weight(self) -> np.ndarray:
        """The weight by which the bundle multiplies, float32 [out, in]."""
        return self.stored.weight[self.place.rows]


class QuantizedWeights:
    """The quantized weights of a bundle.

    Attributes:
        wrong: linear layer or table -> what is wrong with its weight.
        effects: adapted module of a static bundle -> how clearly its missing update would show: the update over the
            deviation that the quantizer's error gives it.
        checks: of every quantized weight and table, after `compare`.
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
        self.checks: list[Check] = []

    @classmethod
    def of(cls, bundle: Bundle) -> QuantizedWeights | None:
        """The weights of a bundle; None if they are not quantized."""
        return cls(bundle) if bundle.manifest.precision not in FLOAT_PRECISIONS else None

    def compare(self, host: Host, fold: Fold | None) -> None:
        """Checks that every stored weight is the quantized form of the base's."""
        modules = {name: module for module, name in host.names.items()}
        for owned in self._by_product(host, fold):
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
                    self.wrong[name] = f"its quantized weight: {found.message}"
                elif module is not None:
                    self._check_update(module, own - base, one.weight - own)
                self.checks.append(Check(f"{name}.weight", "compared", self.wrong.get(name)))
        for table, name, embedding in self._owned_tables(host):
            found = _fault(table, embedding.weight.detach().double().numpy(), "row")
            if found is not None:
                self.wrong[name] = f"its quantized table: {found.message}"
            self.checks.append(Check(f"{name}.weight", "compared", self.wrong.get(name)))

    def _check_update(self, module: str, update: np.ndarray, error: np.ndarray) -> None:
        """Checks that all of a task's update is there. The quantizer's error is independent of the update."""
        size = float(np.square(update).sum())
        if size == 0.0:
            return
        deviation = float(np.sqrt(np.square(error).mean() / size))
        self.effects[module] = 1.0 / max(deviation, 1e-30)
        share = 1.0 + float((error * update).sum()) / size
        if abs(share - 1.0) > LIMIT * deviation:
            self.wrong[module] = f"its weight holds {share:.3g} times the task's update"

    def put_in(self, host: Host, fold: Fold | None) -> None:
        """Puts these weights into the reference; in a static bundle, also the folded weights of all other modules."""
        model = host.model
        modules = {name: module for module, name in host.names.items()}
        for table, _, embedding in self._owned_tables(host):
            embedding.weight = _parameter(table.rows, embedding.weight)
        for owned in self._owned(host, fold):
            name, old = owned.place.linear, owned.linear.weight
            owned.linear.weight = _parameter(owned.weight, old)
            if self._after_adapter and not owned.stored.on_input and name in modules:
                host.method.update_by(model.get_submodule(name), old)
            modules.pop(name, None)
        if fold is not None:
            self._fold_others(host, fold, modules)
            for name in host.names.values():
                _take_off(model.get_submodule(name))

    def _fold_others(self, host: Host, fold: Fold, modules: dict[str, str]) -> None:
        linears = linears_of(host.model)
        for name, module in modules.items():
            old, wanted = linears[name].weight, fold(module)
            update = float(np.abs(wanted - old.detach().double().numpy()).max())
            self.effects.setdefault(module, update / max(_FLOAT32 * float(np.abs(wanted).max()), 1e-30))
            linears[name].weight = _parameter(wanted, old)

    def _owned(self, host: Host, fold: Fold | None) -> Iterator[_Owned]:
        """Every quantized linear layer with its weight; twice, if its product runs twice."""
        for owned in self._by_product(host, fold):
            yield from owned

    def _by_product(self, host: Host, fold: Fold | None) -> Iterator[list[_Owned]]:
        """The layers of every product: several side by side may share a scale."""
        linears = linears_of(host.model)
        for index, product in enumerate(self._products):
            stored = read_product(product)
            if index not in self._places:
                self._places[index] = places_of(stored, host, fold)
            yield [_Owned(place, linears[place.linear], stored) for place in self._places[index]]

    def _owned_tables(self, host: Host) -> Iterator[tuple[StoredTable, str, nn.Embedding]]:
        for prefix, node in self._tables:
            table = read_table(node)
            yield table, *embedding_of(table, host.model, prefix)


def _take_off(layer: Any) -> None:
    """Makes an adapted layer multiply by its base's weight alone, which holds the adapter already."""
    layer.forward = lambda *args, **kwargs: layer.base_layer(*args, **kwargs)


def _fault(stored: StoredProduct | StoredTable, wanted: np.ndarray, row: str = "output feature") -> Fault | None:
    """The first place where a stored weight is not the quantized form of another."""
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
