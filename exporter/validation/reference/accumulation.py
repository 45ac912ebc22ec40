"""What products round by on any machine: a noise floor must not depend on how well this one's PyTorch adds up.

A product adds up K numbers. PyTorch does so in short chains side by side, ONNX Runtime in longer ones (MatMulNBits in
one of all K), and a processor with other vectors in others again. No chain is longer than K, and that one's rounding is
known: every partial sum is rounded once, so that an output y of terms whose squares' sum is S errs by about

    ROUNDING sqrt(K / 2 max(S, y^2))

The reference in the export's own type gets seeded noise of a share of that size at every product. What it amounts to
is told number by number: where a model makes one number a hundred times as large as all others, the rounding of that
one is the noise floor.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

#: Root mean square of what rounding to float32 changes in a number, of its size.
ROUNDING = 0.41 * 2.0**-24
#: How much of the longest chain's rounding is added; PyTorch's own, a third of it to all of it, is there already.
SHARE = 0.8


def add_accumulation_noise(model: nn.Module) -> None:
    """Has every product, and every update that an adapter makes, round as in a long chain.

    Args:
        model: a float32 model, whose adapted layers have a ``base_layer``; hooks are added to it.
    """
    for number, module in enumerate(model.modules()):
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
            module.register_forward_hook(_Product(module, _Noise(number)), prepend=True)
        elif isinstance(module, nn.Conv1d | nn.Conv2d):
            module.register_forward_hook(_Convolution(module, _Noise(number)), prepend=True)
        base = getattr(module, "base_layer", None)
        if isinstance(base, nn.Module) and isinstance(getattr(base, "weight", None), Tensor):  # experts add nothing
            _Update(_terms(base), _Noise(number)).watch(module, base)


def _terms(layer: Any) -> int:
    """How many numbers a product adds up."""
    weight: Tensor = layer.weight
    if weight.ndim == 2:
        return weight.shape[1] if isinstance(layer, nn.Linear) else weight.shape[0]  # Conv1D's is [in, out]
    return weight[0].numel()


class _Noise:
    """Chains' rounding, the same in every validation.

    Args:
        seed: another one for every product.
    """

    def __init__(self, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)

    def like(self, sums: Tensor, spread: Tensor, terms: int) -> Tensor:
        """Of sums [.., n].

        Args:
            sums: what was added up.
            spread: the root of the squares' sum of what was added up, of a shape that broadcasts.
            terms: of how many terms a sum is.
        """
        size = torch.maximum(sums.abs(), spread).mul_(SHARE * ROUNDING * math.sqrt(terms / 2))
        return size.mul_(torch.randn(size.shape, generator=self._random, dtype=size.dtype))


class _Product:
    """Adds noise to the output of a linear layer."""

    def __init__(self, layer: Any, noise: _Noise) -> None:
        self._noise, self._terms = noise, _terms(layer)
        weight = layer.weight.detach()
        squares = (weight if isinstance(layer, nn.Linear) else weight.T).square()
        # squares' sums [.., out] are told by rows [.., 1] and columns [out] of them, which costs no product
        self._inputs = squares.sum(0)
        self._columns = (squares.sum(1) / squares.sum().clamp_min(1e-30)).sqrt()

    def __call__(self, layer: Any, args: tuple[Tensor, ...], output: Any) -> Any:
        if not isinstance(output, Tensor):
            return output  # a router that calls itself a linear layer and chooses as well (PhiMoE's)
        rows = (args[0].square() @ self._inputs).sqrt()[..., None]
        sums = output if layer.bias is None else output - layer.bias
        return output + self._noise.like(sums, rows * self._columns, self._terms)


class _Convolution:
    """Adds noise to the output of a convolution."""

    def __init__(self, layer: Any, noise: _Noise) -> None:
        self._noise, self._terms = noise, _terms(layer)

    def __call__(self, layer: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + self._noise.like(output, output.square().mean(1, keepdim=True).sqrt(), self._terms)


class _Update:
    """Adds noise to what an adapted layer adds: to its base's output, or to its input (TuckA).

    The update is small beside the output, or, of a large scale, a thousand times as large, and then is its rounding.
    """

    def __init__(self, terms: int, noise: _Noise) -> None:
        self._terms, self._noise = terms, noise
        self._input: Tensor | None = None
        self._output: Tensor | None = None

    def watch(self, layer: nn.Module, base: nn.Module) -> None:
        """Adds the hooks."""
        layer.register_forward_pre_hook(self._enter)
        base.register_forward_pre_hook(self._enter_base)
        base.register_forward_hook(self._leave_base)
        layer.register_forward_hook(self._leave, prepend=True)  # before what looks at it

    def _enter(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        self._input = args[0]

    def _enter_base(self, base: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._input is None or args[0] is self._input or args[0].shape != self._input.shape:
            return None
        return (args[0] + self._of(args[0] - self._input), *args[1:])

    def _leave_base(self, base: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self._output = output

    def _leave(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        before, self._input, self._output = self._output, None, None
        if before is None or before is output or before.shape != output.shape:
            return None
        return output + self._of(output - before)

    def _of(self, update: Tensor) -> Tensor:
        return self._noise.like(update, update.square().mean(-1, keepdim=True).sqrt(), self._terms)
