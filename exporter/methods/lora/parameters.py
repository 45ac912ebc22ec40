"""LoRA of parameters (``target_parameters``): the base's class says which of its parameters each pair of factors is of.

PEFT wraps a module once for each of its parameters that a setting names, in the order in which the module has them, and
saves no names of them: behind ``<module>.base_layer.base_layer.lora_`` are the factors of the first, behind
``<module>.lora_`` those of the last.

    [experts, out, in]    A [experts * r, in], B [out, r * experts], in which the expert is what changes fastest
    [experts, in, out]    the same factors, where the module says `is_transposed`
    [out, in]             A [r, in], B [out, r]

(PEFT 0.21, tuners/lora/layer.py: ParamWrapper; tuners_utils.py: _inject_parameters)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eptx._one_line import shown, some
from eptx.errors import AdapterError
from eptx.exporter.adapters.changes import LowRank
from eptx.exporter.adapters.checkpoint import CONFIG, WEIGHTS, take
from eptx.exporter.bases.names import aliases
from eptx.exporter.methods.patterns import scale_of

__all__ = ["Targets", "factors_of", "targets_in"]

_INNER = ".base_layer"


@dataclass(frozen=True)
class Parameter:
    """A parameter of the base's class that a setting names.

    Attributes:
        module: its module, as the adapter's file calls that. name: its own name.
        shape: of it.
        turned: whether the module keeps its experts' weights [in, out].
        linear: whether it is the weight of a linear layer.
    """

    module: str
    name: str
    shape: tuple[int, ...]
    turned: bool
    linear: bool

    @property
    def key(self) -> str:
        """What settings know it by."""
        return f"{self.module}.{self.name}"

    def update(self, own: dict[str, np.ndarray], config: Mapping[str, Any]) -> LowRank:
        """What an adapter adds to it.

        Args:
            own: its factors, which are taken out.
            config: the adapter's.

        Raises:
            AdapterError: a factor is missing, or does not fit.
        """
        a, b = (take(own, self.key, f"lora_{key}.weight", 2).astype(np.float64) for key in "AB")
        count = self.shape[0] if len(self.shape) == 3 else 1
        if a.shape[0] != b.shape[1] or a.shape[0] % count:
            raise AdapterError(
                f"{WEIGHTS}: {self.key}: lora_B has rank {b.shape[1]}, lora_A {a.shape[0]}, for {count} experts"
            )
        rank = a.shape[0] // count
        b *= scale_of(self.key, rank, config)
        if count == 1:
            return self._fitting(a, b)
        a, b = a.reshape(count, rank, -1), b.reshape(len(b), rank, count).transpose(2, 0, 1)
        return self._fitting(b.swapaxes(1, 2), a.swapaxes(1, 2)) if self.turned else self._fitting(a, b)

    def _fitting(self, a: np.ndarray, b: np.ndarray) -> LowRank:
        made = (b.shape[-2], a.shape[-1])
        if made != self.shape[-2:]:
            raise AdapterError(
                f"{self.key} is {list(self.shape)} in the base's class; the adapter's factors make {made}"
            )
        return LowRank(a, b)


#: Module, as a file calls it -> its parameters that a setting names, in the module's order.
Targets = Mapping[str, Sequence[Parameter]]


def targets_in(config: Mapping[str, Any], names: Sequence[str], model: Any, prefix: str) -> dict[str, list[Parameter]]:
    """The parameters that an adapter's settings name in a class.

    Args:
        config: the adapter's.
        names: of its tensors.
        model: of the class; without weights is enough.
        prefix: the class's ``base_model_prefix``.

    Raises:
        AdapterError: the class has no such parameter, or the file holds factors for more of a module's than that.
    """
    wanted = config["target_parameters"]
    if not isinstance(wanted, list) or not all(isinstance(each, str) for each in wanted):
        raise AdapterError(f"{CONFIG}: target_parameters must be a list of names, found {shown(wanted)}")
    found: dict[str, list[Parameter]] = {}
    modules = dict(model.named_modules())
    for name, depth in _depths(names).items():
        module = next((modules[alias] for alias in aliases(name, prefix) if alias in modules), None)
        own = [] if module is None else list(_named(name, module, wanted, prefix))
        if own and len(own) != depth:
            raise AdapterError(
                f"{WEIGHTS}: holds factors for {depth} parameters of {name}; {CONFIG} names "
                f"{some([each.name for each in own])} there (target_parameters)"
            )
        if own:
            found[name] = own
    if not found:
        kind = type(model).__name__
        raise AdapterError(f"{CONFIG}: target_parameters={shown(wanted)}: {WEIGHTS} holds none of a {kind}'s")
    return found


def factors_of(name: str, index: int, count: int) -> str:
    """What stands before the names of the factors of a module's parameter number `index` of `count`."""
    return name + _INNER * (count - 1 - index)


def _depths(names: Sequence[str]) -> dict[str, int]:
    """Module -> for how many parameters there are factors."""
    found: dict[str, int] = {}
    for module in {name.partition(".lora_")[0] for name in names if ".lora_" in name}:
        plain = module.replace(_INNER, "")
        found[plain] = max(found.get(plain, 0), module.count(_INNER) + 1)
    return found


def _named(name: str, module: Any, wanted: Sequence[str], prefix: str) -> Iterator[Parameter]:
    """A module's parameters that a setting names."""
    from torch import nn

    turned = bool(getattr(module, "is_transposed", False))
    for leaf, parameter in module.named_parameters(recurse=False):
        keys = [f"{alias}.{leaf}" for alias in aliases(name, prefix)]
        if any(key == each or key.endswith(f".{each}") for key in keys for each in wanted):
            linear = isinstance(module, nn.Linear) and leaf == "weight"
            yield Parameter(name, leaf, tuple(parameter.shape), turned, linear)
