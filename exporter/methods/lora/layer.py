"""A linear layer with several LoRA adapters, one per row of the batch, as PEFT's own forward computes them.

PEFT mixes adapters in one batch through ``adapter_names``, but not for DoRA and not in one pass with rows of
no adapter at every module; this layer is the reference for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eptx.exporter.methods._tuner import TaskRows
from eptx.exporter.methods.lora.adapter import LoraModule


class LoraRowsLinear(nn.Module):
    """``nn.Linear`` plus the LoRA update of each row's task, where that task adapts this module."""

    def __init__(self, base_layer: nn.Linear, state: TaskRows, tasks: Mapping[int, LoraModule]) -> None:
        super().__init__()
        self.base_layer: Any = base_layer
        self.state = state
        self.scales = {task: module.scale for task, module in tasks.items()}
        self.a = nn.ParameterDict({str(task): _parameter(module.a) for task, module in tasks.items()})
        self.b = nn.ParameterDict({str(task): _parameter(module.b) for task, module in tasks.items()})
        self.magnitude = nn.ParameterDict(
            {str(task): _parameter(m.magnitude) for task, m in tasks.items() if m.magnitude is not None}
        )

    @property
    def weight(self) -> Tensor:
        """The base layer's, whose type T5's feed-forward asks for."""
        weight: Tensor = self.base_layer.weight
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``; the rows' tasks come from the state."""
        result: Tensor = self.base_layer(x)
        rows = self.state.as_rows(x)
        out = self.state.as_rows(result).clone()
        ids = self.state.ids
        if ids is None:
            raise ValueError("set the rows' tasks first")
        for task in sorted(set(ids.tolist())):
            if task in self.scales:
                picked = (ids == task).nonzero().squeeze(1)
                out[picked] = out[picked] + self._update(rows[picked], str(task), self.scales[task])
        return self.state.as_output(out, result)

    def _update(self, rows: Tensor, task: str, scale: float) -> Tensor:
        a, b = self.a[task], self.b[task]
        low_rank: Tensor = (rows @ a.t() @ b.t()) * scale
        if task not in self.magnitude:
            return low_rank
        weight: Tensor = self.base_layer.weight
        norm = torch.linalg.vector_norm(weight + scale * (b @ a), dim=1)
        factor = self.magnitude[task] / norm
        update: Tensor = (factor - 1) * (rows @ weight.t()) + factor * low_rank
        return update


def _parameter(array: Any) -> nn.Parameter:
    return nn.Parameter(torch.tensor(array), requires_grad=False)
