"""The PEFT tuner of Shift: its configuration, layer and model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from eptx.exporter.methods.peft_types import peft_type, register
from eptx.exporter.methods.tuner import EptxTuner, TaskRows


@dataclass
class ShiftConfig(PeftConfig):
    """Settings of an Shift adapter.

    Args:
        target_modules: names of the linear layers to adapt, or one regular expression over whole names.
        tasks: task names; a task's id is its index.
    """

    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | None = None
    layers_pattern: list[str] | None = None
    modules_to_save: list[str] | None = None
    tasks: list[str] = field(default_factory=lambda: ["task0"])

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        self.peft_type = peft_type("SHIFT")


class ShiftLinear(nn.Module, BaseTunerLayer):
    """A linear layer whose output gets each row's vector."""

    adapter_layer_names = ("shift_v",)

    def __init__(self, base_layer: nn.Linear, name: str, state: TaskRows) -> None:
        super().__init__()
        self.base_layer, self.state = base_layer, state
        self.shift_v = nn.ParameterDict({name: torch.zeros(state.num_tasks, base_layer.out_features)})
        self._disable_adapters, self.merged_adapters, self._active_adapter = False, [], name

    def forward(self, x: Tensor) -> Tensor:
        """y + v[task] of each row."""
        y: Tensor = self.base_layer(x)
        if self.disable_adapters or self.state.ids is None:
            return y
        v = self.shift_v[self.active_adapters[0]]
        table = torch.cat([v, v.new_zeros(1, v.shape[1])])  # the last is `base`: none
        rows = self.state.as_rows(y)
        return self.state.as_output(rows + table[self.state.ids].to(y.dtype)[:, None], y)


class ShiftModel(EptxTuner):
    """Puts `ShiftLinear` in place of the targeted linear layers."""

    prefix: str = "shift_"
    tuner_layer_cls = ShiftLinear

    def _pre_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        self.state = TaskRows(len(config.tasks))

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if not isinstance(target, nn.Linear):
            raise TypeError(f"Shift adapts torch.nn.Linear only, and {current_key} is a {type(target).__name__}")
        self._replace_module(parent, target_name, ShiftLinear(target, adapter_name, self.state), target)


register("shift", ShiftConfig, ShiftModel)
