"""float16 arithmetic in PyTorch: every operation's result is rounded to float16, as a model in float16 rounds it.

The model itself stays float32, with its weights rounded. So operations add up in float32, as GPUs do, and every machine
computes the same, whatever its PyTorch has in float16. These results are not rounded, as no model in float16 has them
in float16:

- sums over many numbers, squares and what undoes them, as in norms: models take these in float32;
- what is made of no float, or of such results alone: positions, distances, angles, masks;
- what a router's own parameters give, which bundles keep in float32, until it meets something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from eptx.exporter.trained import Trained

#: What models in float16 compute in float32.
_SUMS = {
    *("pow", "square", "mean", "sum", "var", "std", "norm", "linalg_vector_norm", "cumsum"),
    *("sqrt", "rsqrt", "reciprocal", "exp", "log"),
}
_LARGEST = float(np.finfo(np.float16).max)


def round_to_half(values: Tensor) -> Tensor:
    """Numbers rounded to float16, as float32; finite ones past its largest become that."""
    cut = torch.where(values.isinf(), values, values.clamp(-_LARGEST, _LARGEST))
    return cut.half().to(values.dtype)


class HalfArithmetic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which PyTorch rounds as a float16 model does.

    Args:
        routers: the parameters of routers.
        others: the buffers of the model: what it computes positions of.
    """

    def __init__(self, routers: Iterable[Tensor], others: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._routers, self._exact = WeakIdKeyDictionary(), WeakIdKeyDictionary()
        self._routers |= dict.fromkeys(routers, True)
        self._exact |= dict.fromkeys(others, True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [value for value in _tensors((args, kwargs or {})) if value.is_floating_point()]
        returns = [each.alias_info for each in func._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in returns)
        writes = any(alias is not None and alias.is_write for alias in returns)
        moving = [value for value in given if value not in self._exact and value not in self._routers]
        if is_view:
            self._note(result, given)
        elif moving and any(value in self._routers for value in given):
            self._exact |= dict.fromkeys(_floats(result), True)  # a router's scores
        elif func._schema.name.removeprefix("aten::").rstrip("_") in _SUMS:
            self._exact |= dict.fromkeys(_floats(result), True)
        elif not moving:
            self._note(result, given)
        elif writes:
            for value in _floats(result):
                value.copy_(round_to_half(value))
        else:
            return _mapped(result)
        return result

    def _note(self, result: Any, given: list[Tensor]) -> None:
        """Remembers of what kind a result is, of which all that it is made of is."""
        if given and all(value in self._routers for value in given):
            self._routers |= dict.fromkeys(_floats(result), True)
        elif all(value in self._exact or value in self._routers for value in given):
            self._exact |= dict.fromkeys(_floats(result), True)


def half_arithmetic(trained: Trained) -> HalfArithmetic:
    """The arithmetic of a trained model in float16."""
    routers, others = [], []
    for host in trained.hosts:
        parts = host.method.router_parts
        routers += [value for name, value in host.model.named_parameters() if any(part in name for part in parts)]
        others += list(host.model.buffers())
    return HalfArithmetic(routers, others)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _floats(value: Any) -> Iterator[Tensor]:
    return (each for each in _tensors(value) if each.dtype == torch.float32)


def _mapped(result: Any) -> Any:
    if isinstance(result, Tensor):
        return round_to_half(result) if result.dtype == torch.float32 else result
    return type(result)(map(_mapped, result)) if isinstance(result, list | tuple) else result
