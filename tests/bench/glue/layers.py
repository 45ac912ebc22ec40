"""MTL-LoRA and HydraLoRA for training: linear layers with the released codes' names of parameters."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RowTasks:
    """The task of each row of the batch, which all layers of one model share."""

    def __init__(self) -> None:
        self.ids = torch.zeros(1, dtype=torch.int64)


class MtlLoraLinear(nn.Module):
    """One A for all tasks, a matrix between for each, and B matrices that each task mixes.

    pUmpKin-Co/MTL-LoRA, src/adapter/mlora.py, batched over rows of any tasks.
    """

    def __init__(
        self, inner: nn.Linear, state: RowTasks, *, tasks: int, r: int, experts: int, alpha: float, temperature: float
    ) -> None:
        super().__init__()
        self.inner, self.state, self.scale, self.temperature = inner, state, alpha / r, temperature
        self.lora_A = nn.Parameter(torch.empty(1, r, inner.in_features))
        self.lora_lambdas = nn.Parameter(torch.eye(r).repeat(tasks, 1, 1))
        self.lora_B = nn.Parameter(torch.zeros(experts, inner.out_features, r))
        self.lora_B_w = nn.Parameter(torch.empty(tasks, experts))
        nn.init.kaiming_uniform_(self.lora_A[0], a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.lora_B_w, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, positions, in]`` to ``[batch, positions, out]``."""
        ids = self.state.ids
        shares = torch.softmax(self.lora_B_w[ids] / self.temperature, -1)
        up = torch.einsum("bn,nor->bro", shares, self.lora_B)
        hidden = F.linear(x, self.lora_A[0]) @ self.lora_lambdas[ids].transpose(1, 2)
        result: Tensor = self.inner(x) + self.scale * (hidden @ up)
        return result


class HydraLoraLinear(nn.Module):
    """One A, and B matrices that a router mixes for every token.

    Clin0212/HydraLoRA: ``y += alpha / r * sum_i p_i B_i A x`` with ``p = softmax(route x)`` in float32.
    """

    def __init__(self, inner: nn.Linear, *, r: int, experts: int, alpha: float) -> None:
        super().__init__()
        self.inner, self.scale, self.experts = inner, alpha / r, experts
        self.lora_A = nn.Linear(inner.in_features, r, bias=False)
        self.lora_route = nn.Linear(inner.in_features, experts, bias=False)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.lora_route.weight, a=math.sqrt(5))
        for index in range(experts):
            up = nn.Linear(r, inner.out_features, bias=False)
            nn.init.zeros_(up.weight)
            self.add_module(f"lora_B{index}", up)

    def forward(self, x: Tensor) -> Tensor:
        """All B matrices as one product of what their shares make of A x."""
        shares = torch.softmax(self.lora_route(x).float(), -1)
        hidden = self.lora_A(x)
        weighed = (shares.to(hidden.dtype).unsqueeze(-1) * hidden.unsqueeze(-2)).flatten(-2)
        up = torch.cat([self.get_parameter(f"lora_B{index}.weight") for index in range(self.experts)], 1)
        result: Tensor = self.inner(x) + self.scale * F.linear(weighed, up)
        return result


def put_layers(model: Any, pattern: str, make: Callable[[nn.Linear], nn.Module]) -> Any:
    """Freezes a model, and puts new layers around the linear layers whose whole names match."""
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and re.fullmatch(pattern, name):
            model.set_submodule(name, make(module))
    return model


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What the released codes save: the tensors of the adapter, by their names in the model."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if ".lora_" in name}
