"""From what MoE-PEFT saves of a MixLoRA adapter to a folder that eptx reads: a layer's experts become one tensor."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import AdapterError, NotSupportedError
from eptx.exporter.methods.released import Conversion, positive

#: MoE-PEFT's names of the last projection of a feed-forward, and of those before it.
_LAST = ("down_proj", "fc2", "dense_4h_to_h")
_FIRST = ("gate_proj", "up_proj", "gate_up_proj", "fc1", "dense_h_to_4h")
_BEGINS = "mixlora.layers."
_GATE = ".moe_gate.weight"


def _matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    return "routing_strategy" in config or any(name.startswith(_BEGINS) for name in names)


def _convert(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    _check(config)
    gates = {name.removesuffix(_GATE): array for name, array in tensors.items() if name.endswith(_GATE)}
    experts: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    for name, array in tensors.items():
        if not name.endswith(_GATE):
            module, number, letter = _place(name)
            experts.setdefault(module, {}).setdefault(letter, {})[number] = array
    written: dict[str, np.ndarray] = {}
    for module, factors in experts.items():
        own = module.replace(_BEGINS, "model.layers.", 1)
        for letter, numbered in factors.items():
            written[f"{own}.moe_lora_{letter}"] = _stacked(f"{module}.*.lora_{letter}.weight", numbered)
        parent, _, last = module.rpartition(".")
        if parent in gates and last in _FIRST:
            written[f"{own}.moe_gate"] = gates[parent]
    for parent in gates:
        names = [module.rpartition(".")[2] for module in experts if module.startswith(f"{parent}.")]
        if not set(names) & set(_FIRST) or not set(names) & set(_LAST):
            raise NotSupportedError(
                f"{parent}: has experts at {', '.join(names) or 'no projection'} only, and eptx supports feed-forwards "
                "whose first and last projections have some: train with all of them in target_modules"
            )
    of_experts = {**config, **(config.get("expert_lora") or {})}
    return written, {
        "peft_type": "MIXLORA",
        "top_k": int(positive(config, "top_k")),
        "scaling": _scale(config),
        "expert_scaling": _scale(of_experts),
    }


def _place(name: str) -> tuple[str, int, str]:
    """The layer of a factor, its expert (0 where there is one), and which factor it is."""
    found = re.fullmatch(r"(.+?)(?:\.experts\.(\d+))?\.lora_([AB])\.weight", name)
    if found is None:
        raise AdapterError(f"{name}: is no tensor of a MixLoRA adapter that MoE-PEFT saves")
    return found[1], int(found[2] or 0), found[3]


def _check(config: Mapping[str, Any]) -> None:
    """Refuses, by name, what would change the result."""
    strategy = config.get("routing_strategy", "mixlora")
    if strategy != "mixlora":
        raise NotSupportedError(
            f"routing_strategy={strategy!r} is not supported: train with routing_strategy 'mixlora'"
        )
    for part in (config, config.get("expert_lora") or {}):
        if part.get("use_dora"):
            raise NotSupportedError("use_dora=true is not supported in MixLoRA: train with use_dora false")
    if config.get("act_fn"):
        raise NotSupportedError(
            f"act_fn={config['act_fn']!r} is not supported: the experts then have another activation than the base; "
            "if it is the base's own, take act_fn out of adapter_config.json"
        )


def _scale(config: Mapping[str, Any]) -> float:
    rank, alpha = (positive(config, key) for key in ("r", "lora_alpha"))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _stacked(name: str, numbered: Mapping[int, np.ndarray]) -> np.ndarray:
    """The experts by number.

    Raises:
        AdapterError: one is missing, or of another shape.
    """
    missing = sorted(set(range(max(numbered) + 1)) - numbered.keys())
    if missing:
        raise AdapterError(f"{name}: expert {missing[0]} is missing: save the adapter again")
    arrays = [numbered[number] for number in sorted(numbered)]
    if len({array.shape for array in arrays}) > 1:
        raise AdapterError(f"{name}: experts differ in shape: {', '.join(str(list(a.shape)) for a in arrays[:2])}")
    return np.stack(arrays)


CONVERSION = Conversion(
    "MixLoRA",
    _matches,
    _convert,
    {
        "r": "the rank",
        "lora_alpha": "the scale of the update is lora_alpha / r",
        "top_k": "how many experts a token chooses",
    },
)
