"""The trained model: a PEFT tuner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from eptx.exporter.methods.peft_types import peft_type, register
from eptx.exporter.methods.tuner import EptxTuner, TaskRows
from eptx.exporter.trained.files import AdapterFiles
from eptx.exporter.trained.names import exactly
from eptx.exporter.trained.reference import GivenRoutes, Reference, SavedAs


@dataclass
class ShiftConfig(PeftConfig):
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | None = None
    layers_pattern: list[str] | None = None
    modules_to_save: list[str] | None = None
    tasks: list[str] = field(default_factory=lambda: ["task0"])

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type("SHIFT")


class ShiftLinear(nn.Module, BaseTunerLayer):
    adapter_layer_names = ("shift_v",)

    def __init__(self, base_layer: nn.Linear, name: str, state: TaskRows) -> None:
        super().__init__()
        self.base_layer, self.state = base_layer, state
        self.shift_v = nn.ParameterDict({name: torch.zeros(state.num_tasks, base_layer.out_features)})
        self._disable_adapters, self.merged_adapters, self._active_adapter = False, [], name

    def forward(self, x: Tensor) -> Tensor:
        y = self.base_layer(x)
        if self.disable_adapters or self.state.ids is None:
            return y
        vectors = torch.cat([self.shift_v[self.active_adapters[0]], torch.zeros_like(y[:1, 0])])[self.state.ids]
        return y + vectors[:, None]


class ShiftModel(EptxTuner):
    prefix = "shift_"
    tuner_layer_cls = ShiftLinear

    def _pre_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        self.state = TaskRows(len(config.tasks))

    def _create_and_replace(
        self, config: Any, name: str, target: Any, target_name: str, parent: Any, current_key: str, **_: Any
    ) -> None:
        self._replace_module(parent, target_name, ShiftLinear(target, name, self.state), target)


register("shift", ShiftConfig, ShiftModel)


class ShiftReference(Reference):
    name: ClassVar[str] = "shift"
    title: ClassVar[str] = "Shift"
    tensor_part: ClassVar[str] = ".shift_"

    def matches(self, config: Mapping[str, Any], tensors: Sequence[str]) -> bool:
        return config.get("peft_type") == "SHIFT"

    def count_tasks(self, files: Sequence[AdapterFiles], given: Sequence[str] | None) -> tuple[int, list[str]]:
        return next(iter(files[0].shapes(".shift_v").values()))[0], []

    def modules(self, files: AdapterFiles) -> list[str]:
        return list(files.shapes(".shift_v"))

    def config(
        self, files: AdapterFiles, names: Mapping[str, str], tasks: Sequence[str], top_k: int | None, saved: SavedAs
    ) -> ShiftConfig:
        return ShiftConfig(target_modules=exactly(list(names.values())), tasks=list(tasks), task_type=saved[0])

    def tell(self, state: TaskRows, ids: Tensor, routes: GivenRoutes) -> None:
        state.set(ids)


REFERENCE = ShiftReference()
