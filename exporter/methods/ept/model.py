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

    Tasks are given per row::

        model = get_peft_model(base, EptConfig(tasks=["cola", "mrpc"], target_modules=["query"]))
        model(**inputs_of_two_rows, task=torch.tensor([0, 1]))
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
        self.state.targets = self.state.ids

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """In training, the tasks of some rows are kept from the modules, and these collect their task loss."""
        state, config = self.state, self._settings()
        state.begin()
        state.collect_loss = model.training and config.task_loss_weight > 0
        if state.targets is not None:
            state.ids = state.targets
            if model.training and config.infer_fraction:
                hidden = torch.rand(len(state.ids), device=state.ids.device) < config.infer_fraction
                state.ids = state.ids.masked_fill(hidden, INFER)

    def _end(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        losses = self.state.losses
        self.auxiliary_loss = self._settings().task_loss_weight * torch.stack(losses).mean() if losses else None

    def _settings(self) -> EptConfig:
        config: Any = self.peft_config[self.active_adapters[0]]
        return config  # type: ignore[no-any-return]


register("ept", EptConfig, EptModel)
