"""Reads MixLoRA adapters that ``eptx convert`` has made of what MoE-PEFT saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import AdapterError
from eptx.exporter.adapters.adapter import natural_key
from eptx.exporter.adapters.checkpoint import (
    CONFIG,
    WEIGHTS,
    Checkpoint,
    ReadOptions,
    group_by_module,
    number,
    refuse_rest,
    refuse_unknown,
    take,
)
from eptx.exporter.methods.mixlora.adapter import MixLoraAdapter, MixLoraModule
from eptx.exporter.methods.one_folder import CONVERT_AGAIN, check_shapes, common_fields, only, tasks_by_heads


def matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    """As ``eptx convert`` calls it."""
    return config.get("peft_type") == "MIXLORA" and "routing_strategy" not in config


def read(checkpoints: Sequence[Checkpoint], options: ReadOptions) -> MixLoraAdapter:
    """The MixLoRA adapter of one folder.

    Raises:
        AdapterError: tensors or settings are missing, extra, or do not fit each other.
        NotSupportedError: a setting that eptx does not know, by name.
        UsageError: several folders were given.
    """
    checkpoint = only("MixLoRA", checkpoints)
    config = checkpoint.config
    refuse_unknown(config, ("top_k", "scaling", "expert_scaling", "act_fn"))
    grouped = group_by_module(checkpoint.tensors, "moe_")
    modules = {name: _module(name, grouped[name], config) for name in sorted(grouped, key=natural_key)}
    top_k, counts = int(number(config, "top_k")), sorted({own.experts for own in modules.values()} - {1})
    if len(counts) != 1 or not any(own.gate is not None for own in modules.values()):
        found = f"modules disagree on the number of experts: {counts}" if counts else "no module has experts"
        raise AdapterError(f"{WEIGHTS}: {found}: {CONVERT_AGAIN}")
    if top_k > counts[0]:
        raise AdapterError(f"{CONFIG}: top_k is {top_k}, and there are {counts[0]} experts: {CONVERT_AGAIN}")
    return MixLoraAdapter(
        **common_fields(checkpoint, tasks_by_heads(checkpoint, options)),
        modules=modules,
        top_k=top_k,
        act_fn=str(config["act_fn"]) if config.get("act_fn") else None,
    )


def _module(name: str, parts: dict[str, np.ndarray], config: Mapping[str, Any]) -> MixLoraModule:
    a, b = take(parts, name, "moe_lora_A", 3), take(parts, name, "moe_lora_B", 3)
    gate = take(parts, name, "moe_gate", 2) if "moe_gate" in parts else None
    refuse_rest(parts, name)
    count, rank, width = a.shape
    wanted: list[tuple[str, np.ndarray, tuple[int, ...]]] = [("moe_lora_B", b, (count, b.shape[1], rank))]
    wanted += [] if gate is None else [("moe_gate", gate, (count, width))]
    check_shapes(name, wanted)
    return MixLoraModule(a, b, gate, number(config, "scaling" if count == 1 else "expert_scaling"))
