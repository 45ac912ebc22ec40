"""From what HydraLoRA and LoRAMoE save, a ``.bin`` that calls itself LORA, to a folder that eptx reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.exporter.adapters.checkpoint import refuse_options, refuse_unknown
from eptx.exporter.methods.released import Conversion, positive

#: What the tensors say anyway, or only training asks for. Trained biases are in the file, whatever `bias` says.
_KNOWN = (
    *("r", "lora_alpha", "lora_nums", "blc_alpha", "blc_weight", "lora_dropout", "merge_weights", "target_modules"),
    *("bias", "fan_in_fan_out", "enable_lora"),
)


def _matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    return bool(config.get("lora_nums")) or any(name.endswith(".lora_route.weight") for name in names)


def _convert(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    refuse_options(config, {"fan_in_fan_out": (False, None), "enable_lora": (None, [])})
    refuse_unknown(config, _KNOWN)
    shared = any(name.endswith(".lora_A.weight") for name in tensors)
    kind = "HYDRA_LORA" if shared else "LORAMOE"
    return dict(tensors), {"peft_type": kind, "lora_alpha": positive(config, "lora_alpha")}


CONVERSION = Conversion(
    "HydraLoRA or LoRAMoE", _matches, _convert, {"lora_alpha": "the scale of the update is lora_alpha / r"}
)
