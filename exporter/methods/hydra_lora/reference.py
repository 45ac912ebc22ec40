"""The trained HydraLoRA or LoRAMoE model: the formula of the released codes, in a PEFT tuner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from eptx.exporter.methods.routed_formula import RoutedReference
from eptx.exporter.trained.files import AdapterFiles


def _update(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], x: Tensor, weigh: Callable[[Tensor], Tensor]
) -> Tensor:
    """Clin0212/HydraLoRA and Ablustrund/LoRAMoE, peft/tuners/lora.py: expert by expert."""
    route = tensors["lora_route.weight"]
    shares = weigh(torch.softmax(x @ route.T, -1))
    first = tensors.get("lora_A.weight", tensors.get("lora_A0.weight"))
    assert first is not None
    total = torch.zeros((), dtype=x.dtype)
    for expert in range(len(route)):
        down = tensors.get("lora_A.weight", tensors.get(f"lora_A{expert}.weight"))
        assert down is not None
        total = total + shares[..., expert : expert + 1] * (x @ down.T @ tensors[f"lora_B{expert}.weight"].T)
    scale: float = settings["lora_alpha"] / len(first)
    return total * scale


class HydraLoraReference(RoutedReference, formula=_update):
    """One adapter of all tasks; every token weighs the experts of every module."""

    name: ClassVar[str] = "hydra_lora"
    title: ClassVar[str] = "HydraLoRA"
    tensor_part: ClassVar[str] = ".lora_"
    router_parts: ClassVar[tuple[str, ...]] = ("lora_route",)
    router_tensor: ClassVar[str] = "lora_route.weight"

    def matches(self, config: Mapping[str, Any], tensors: Sequence[str]) -> bool:
        return config.get("peft_type") in ("HYDRA_LORA", "LORAMOE")

    def kind(self, config: Mapping[str, Any]) -> str:
        return "loramoe" if config.get("peft_type") == "LORAMOE" else self.name

    def modules(self, files: AdapterFiles) -> list[str]:
        return list(files.shapes(f".{self.router_tensor}"))


REFERENCE = HydraLoraReference()
