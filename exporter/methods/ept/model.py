"""The PEFT tuner of Expert Pyramid Tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eptx.exporter.methods.ept.config import EptConfig
from eptx.exporter.methods.ept.layer import EptLayer, EptLinear, EptState
from eptx.exporter.methods.peft_types import register
from eptx.exporter.methods.tuner import INFER, EptxTuner


class EptModel(EptxTuner):
    """Puts :class:`EptLinear` in place of the targeted linear layers (``get_peft_model`` calls it).

    Tasks are given per row before a forward::

        model = get_peft_model(base, EptConfig(tasks=["cola", "mrpc"], target_modules=["query"]))
        model.base_model.set_tasks([0, 1])
        model(**inputs_of_two_rows)
    """

    prefix: str = "lora_"
    tuner_layer_cls = EptLayer

    def _pre_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        if "state" not in self.__dict__:
            self.state = EptState(len(config.tasks))
        elif self.state.num_tasks != len(config.tasks):
            raise ValueError("adapters of one model must have the same number of tasks")

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
        if isinstance(target, EptLinear):
            target.update_layer(adapter_name, peft_config)
        elif isinstance(target, nn.Linear):
            new = EptLinear(target, adapter_name, current_key, self.state, peft_config)
            if adapter_name not in self.active_adapters:
                new.requires_grad_(False)
            self._replace_module(parent, target_name, new, target)
        else:
            raise TypeError(f"EPT adapts torch.nn.Linear only, and {current_key} is a {type(target).__name__}")

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        """PEFT looks for the name in the last two places only, and the gate's is the third last."""
        module, gate, rest = key.rpartition(f".lora_gate.{adapter_name}.")
        return f"{module}.lora_gate.{rest}" if gate else str(super()._remove_adapter_name_from_key(key, adapter_name))

    def set_tasks(self, ids: Sequence[int] | Tensor | None) -> None:
        """Task id of each row from now on: -1 infers it, ``len(tasks)`` switches the adapter off."""
        self.state.set(ids, lowest=INFER)

    def task_loss(self) -> Tensor:
        """Mean over modules of the last forward's contrastive task loss, if ``state.collect_loss``."""
        if not self.state.losses:
            raise ValueError("no task loss was collected: set state.collect_loss before the forward")
        return torch.stack(self.state.losses).mean()

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.state.begin()


register("ept", EptConfig, EptModel)
