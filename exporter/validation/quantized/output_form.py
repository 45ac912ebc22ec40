"""TuckA whose update goes past a weight that was quantized after the update was made.

The graph computes y = Q x + P (..), with P made of the base's own W; the reference's layer multiplies its updated
input x' by Q. What is missing is (W - Q)(x' - x), which is added here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def update_by(layer: Any, weight: Tensor) -> None:
    """Has an adapted layer multiply its update by another weight [out, in] than its input."""
    difference = (weight - layer.base_layer.weight).detach()
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: Any) -> None:
        seen[:] = [args[0]]

    def add(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output + torch.nn.functional.linear(args[0] - seen[0], difference)

    layer.register_forward_pre_hook(keep)
    layer.base_layer.register_forward_hook(add)
