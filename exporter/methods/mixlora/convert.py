"""From what MoE-PEFT saves of a MixLoRA adapter to a folder that eptx reads: the experts of a layer become one tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import AdapterError, NotSupportedError
from eptx.exporter.methods.released import Conversion

#: MoE-PEFT's names of the last projection of a feed-forward, and of those before it.
_LAST = ("down_proj", "fc2", "dense_4h_to_h")
_FIRST = ("gate_proj", "up_proj", "gate_up_proj", "fc1", "dense_h_to_4h")
_BEGINS = "mixlora.layers."
_GATE = ".moe_gate.weight"


def _matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    return any(name.startswith(_BEGINS) for name in names)


def _convert(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    _check(config)
    gates = {name.removesuffix(_GATE): array for name, array in tensors.items() if name.endswith(_GATE)}
    experts: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    for name, array in tensors.items():
        if name.endswith(_GATE):
            continue
        module, found, rest = name.partition(".experts.")
        number, _, rest = rest.partition(".") if found else ("0", "", name.removeprefix(module).lstrip("."))
        if not found:
            module, _, rest = name.partition(".lora_")
            rest = f"lora_{rest}"
        if rest not in ("lora_A.weight", "lora_B.weight") or not number.isdigit():
            raise AdapterError(f"{name}: is no tensor of a MixLoRA adapter that MoE-PEFT saves")
        experts.setdefault(module, {}).setdefault(rest[5], {})[int(number)] = array
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
    own = {**config, **(config.get("expert_lora") or {})}
    return written, {
        "peft_type": "MIXLORA",
        "top_k": config["top_k"],
        "scaling": _scale(config),
        "expert_scaling": _scale(own),
    }


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
    rank, alpha = (float(config[key]) for key in ("r", "lora_alpha"))
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
    _matches,
    _convert,
    {
        "r": "the rank",
        "lora_alpha": "the scale of the update is lora_alpha / r",
        "top_k": "how many experts a token chooses",
    },
)
