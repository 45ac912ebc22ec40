"""What PEFT's layers compute, as weights: each layer is asked with its own forward, and none is merged.

PEFT's merge may round in another type than its forward, or leave a bias out; what was trained is the forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from eptx._one_line import one_line
from eptx.errors import NotSupportedError

#: How far a layer may be from its weights on random inputs, relative to the largest output: some of PEFT's layers
#: compute in float32, whose rounding is 1e-7.
_LINEAR = 1e-5
_LEAVE_OUT = "leave it out of target_modules and train again"


@dataclass(frozen=True)
class Linear:
    """A linear layer of the base and what a task makes of it, float64.

    Attributes:
        base: [out, in]. adapted: the same of the task.
        shift: [out], what the task adds to the bias.
    """

    base: np.ndarray
    adapted: np.ndarray
    shift: np.ndarray


def is_linear(layer: BaseTunerLayer) -> bool:
    """Whether a layer multiplies by a weight [out, in], or [in, out] as GPT-2's do."""
    return isinstance(layer.get_base_layer(), (nn.Linear, Conv1D))


def linear(name: str, layer: BaseTunerLayer) -> Linear:
    """What a layer makes of the unit vectors, and of zero.

    Args:
        name: the layer's, for messages.
        layer: PEFT's, in float64, with the one adapter active.

    Raises:
        NotSupportedError: it is no linear function of its input.
    """
    inner: Any = layer.get_base_layer()
    weight: Tensor = inner.weight.detach()
    weight = weight.T if isinstance(inner, Conv1D) else weight
    width = weight.shape[1]
    zero = _call(name, layer, torch.zeros(1, width, dtype=torch.float64))[0]
    rows = _call(name, layer, torch.eye(width, dtype=torch.float64)) - zero
    x = torch.randn(4, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _compare(name, _call(name, layer, x), x @ rows + zero)
    bias = torch.zeros_like(zero) if inner.bias is None else inner.bias.detach()
    return Linear(weight.numpy(), np.ascontiguousarray(rows.T.numpy()), (zero - bias).numpy())


def tensors(name: str, layer: BaseTunerLayer) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Parameter -> the base's and the task's array, of a layer of another kind: norms, embeddings, convolutions.

    PEFT merges the adapter; the merged layer is then compared with the unmerged one's forward.

    Raises:
        NotSupportedError: PEFT cannot merge it, or the merged layer is another function.
    """
    inner: Any = layer.get_base_layer()
    x = _input(name, inner)
    wanted = _call(name, layer, x)
    before = {key: value.detach().clone() for key, value in inner.named_parameters()}
    try:
        layer.merge(safe_merge=False)
    except Exception as error:  # methods raise any class where they do not take a kind of layer
        problem = f"PEFT cannot merge its {type(layer).__name__}: {one_line(error)}"
        raise NotSupportedError(f"{name}: {problem}; {_LEAVE_OUT}") from None
    merged: Any = layer.get_base_layer()
    _compare(name, _call(name, merged, x), wanted)
    return {key: (before[key].numpy(), value.detach().numpy()) for key, value in merged.named_parameters()}


def _input(name: str, layer: nn.Module) -> Tensor:
    """Something that a layer reads: every token, or random numbers of its width."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(layer, nn.Embedding):
        return torch.arange(layer.num_embeddings)
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        # an odd size, that no stride divides
        sizes = [2 * size + 5 for size in layer.kernel_size]
        return torch.randn(2, layer.in_channels, *sizes, dtype=torch.float64, generator=generator)
    weight = getattr(layer, "weight", None)
    if isinstance(weight, Tensor) and weight.ndim == 1:  # norms
        return torch.randn(4, len(weight), dtype=torch.float64, generator=generator)
    raise NotSupportedError(f"{name}: it adapts a {type(layer).__name__}, which is not supported: {_LEAVE_OUT}")


def _call(name: str, layer: Any, x: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            result: Tensor = layer(x)
    except Exception as error:  # layers raise any class
        problem = f"PEFT's {type(layer).__name__} cannot be run: {one_line(error)}"
        raise NotSupportedError(f"{name}: {problem}; {_LEAVE_OUT}") from None
    return result.to(torch.float64)


def _compare(name: str, found: Tensor, wanted: Tensor) -> None:
    """Refuses a layer that is another function than its weights."""
    largest = float(wanted.abs().max())
    if not float((found - wanted).abs().max()) <= _LINEAR * max(largest, 1e-30):
        raise NotSupportedError(
            f"{name}: what PEFT computes there is no linear function of the layer's input, so no weights hold it: "
            f"{_LEAVE_OUT}"
        )
