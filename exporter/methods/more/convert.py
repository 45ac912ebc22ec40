"""From what the released MoRE saves, a folder that calls itself LORA, to a folder that eptx reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx._one_line import shown
from eptx.errors import AdapterError, UsageError
from eptx.exporter.adapters.checkpoint import refuse_options, refuse_unknown
from eptx.exporter.methods.released import Conversion, positive

_A = ".lora_A.weight"
#: Settings of the LoRA that it changes, each with the values that change nothing.
_OFF: dict[str, tuple[Any, ...]] = {
    "bias": ("none", None),
    "init_lora_weights": (True, False, "gaussian", None),
    **dict.fromkeys(("use_dora", "use_rslora"), (False, None)),
    **dict.fromkeys(("rank_pattern", "alpha_pattern"), ({}, None)),
}
#: What the tensors say anyway, or only training asks for.
_KNOWN = (
    *(*_OFF, "r", "lora_alpha", "lora_dropout", "target_modules", "fan_in_fan_out", "layers_to_transform"),
    *("layers_pattern", "megatron_config", "megatron_core", "loftq_config", "rank_scaling"),
)


def _matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    return any(".lora_gate.0." in name for name in names)


def _convert(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    refuse_options(config, _OFF)
    refuse_unknown(config, _KNOWN)
    scaling = config["rank_scaling"]
    if scaling not in ("eighths", "none"):
        raise UsageError(f"--set rank_scaling={scaling}: give eighths or none: {_SETTINGS['rank_scaling']}")
    for name, array in tensors.items():
        if name.endswith(_A) and config.get("r", len(array)) != len(array):
            raise AdapterError(f"{name} has rank {len(array)}; the configuration says {shown(config['r'])}")
    said = {"lora_alpha": positive(config, "lora_alpha"), "rank_scaling": scaling}
    written = {name.replace(".lora_gate.0.", ".lora_gate."): array for name, array in tensors.items()}
    return written, {"peft_type": "MORE", **said}


_SETTINGS = {
    "lora_alpha": "the scale of the update is lora_alpha / r",
    "rank_scaling": "eighths if the layer.py that trained it multiplies by scaling_factors (0.125 to 1.0), as the last "
    "version does; none if it has no scaling_factors, as the first version",
}
CONVERSION = Conversion("MoRE", _matches, _convert, _SETTINGS)
