"""From what HydraLoRA and LoRAMoE save, a ``.bin`` that calls itself LORA, to a folder that eptx reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.exporter.methods.released import Conversion


def _matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    return any(name.endswith(".lora_route.weight") for name in names)


def _convert(
    tensors: Mapping[str, np.ndarray], settings: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    shared = any(name.endswith(".lora_A.weight") for name in tensors)
    return dict(tensors), {"peft_type": "HYDRA_LORA" if shared else "LORAMOE", **settings}


CONVERSION = Conversion(_matches, _convert, {"lora_alpha": "the scale of the update is lora_alpha / r"})
