"""Reads HydraLoRA and LoRAMoE adapters that ``eptx convert`` has made of what the released codes save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.exporter.adapters.checkpoint import (
    Checkpoint,
    ReadOptions,
    number,
    refuse_rest,
    refuse_unknown,
    take,
)
from eptx.exporter.methods.hydra_lora.adapter import HydraLoraAdapter, HydraLoraModule
from eptx.exporter.methods.one_folder import check_shapes
from eptx.exporter.methods.routed import read_routed

#: ``peft_type`` as ``eptx convert`` writes it -> what manifests call the method.
KINDS = {"HYDRA_LORA": "hydra_lora", "LORAMOE": "loramoe"}


def matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    """As ``eptx convert`` calls it; the released codes call it LORA."""
    return config.get("peft_type") in tuple(KINDS)  # whatever a file says, hashable or not


def read(checkpoints: Sequence[Checkpoint], options: ReadOptions) -> HydraLoraAdapter:
    """The adapter of one folder.

    Raises:
        AdapterError: tensors or settings are missing, extra, or do not fit each other.
        NotSupportedError: a setting that eptx does not know, by name.
        UsageError: several folders were given.
    """
    for checkpoint in checkpoints:
        refuse_unknown(checkpoint.config, ("lora_alpha", "bias"))
    kind = KINDS[str(checkpoints[0].config["peft_type"])]
    return read_routed(HydraLoraAdapter, "HydraLoRA", checkpoints, options, "lora_", _module, kind_name=kind)


def _module(name: str, parts: dict[str, np.ndarray], config: Mapping[str, Any]) -> HydraLoraModule:
    route = take(parts, name, "lora_route.weight", 2)
    count = len(route)
    shared = config["peft_type"] == "HYDRA_LORA"
    keys = ["lora_A.weight"] if shared else [f"lora_A{i}.weight" for i in range(count)]
    a = [take(parts, name, key, 2) for key in keys]
    b = [take(parts, name, f"lora_B{i}.weight", 2) for i in range(count)]
    refuse_rest(parts, name)
    (rank, width), out = a[0].shape, len(b[0])
    wanted = [("lora_route.weight", route, (count, width))]
    wanted += [(key, each, (rank, width)) for key, each in zip(keys, a, strict=True)]
    wanted += [(f"lora_B{i}.weight", each, (out, rank)) for i, each in enumerate(b)]
    check_shapes(name, wanted)
    return HydraLoraModule(route, np.stack(a), np.stack(b), number(config, "lora_alpha") / rank)
