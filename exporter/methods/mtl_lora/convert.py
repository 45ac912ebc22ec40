"""From what the released MTL-LoRA saves, a ``.pt`` without a configuration, to a folder that eptx reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import NotSupportedError
from eptx.exporter.methods.released import Conversion

_MERGED = ("lora_B_q", "lora_B_k", "lora_B_v")


def _matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    return any(name.endswith(".lora_lambdas") for name in names)


def _convert(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    merged = next((name for name in tensors if name.endswith(tuple(f".{part}" for part in _MERGED))), None)
    if merged is not None:
        raise NotSupportedError(
            f"{merged}: a layer that computes queries, keys and values in one (mLoRAMergedLinear) is not supported: "
            "train MTL-LoRA on a base that has them apart"
        )
    return dict(tensors), {"peft_type": "MTL_LORA", **{key: config[key] for key in _SETTINGS}}


_SETTINGS = {
    "lora_alpha": "the scale of the update is lora_alpha / r",
    "temperature": "of the softmax over the B matrices; the released code calls it B_scale",
}
CONVERSION = Conversion("MTL-LoRA", _matches, _convert, _SETTINGS)
