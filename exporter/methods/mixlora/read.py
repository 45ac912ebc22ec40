"""Reads MixLoRA adapters that ``eptx convert`` has made of what MoE-PEFT saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import AdapterError, UsageError
from eptx.exporter.adapters.adapter import name_tasks, natural_key
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
    task_names,
)
from eptx.exporter.methods.mixlora.adapter import MixLoraAdapter, MixLoraModule

_AGAIN = "convert the adapter again with eptx convert"


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
    if len(checkpoints) != 1:
        raise UsageError("a folder of MixLoRA holds all its tasks: give one adapter folder")
    (checkpoint,) = checkpoints
    config = checkpoint.config
    refuse_unknown(config, ("top_k", "scaling", "expert_scaling"))
    grouped = group_by_module(checkpoint.tensors, "moe_")
    modules = {name: _module(name, grouped[name], config) for name in sorted(grouped, key=natural_key)}
    top_k, counts = int(number(config, "top_k")), sorted({own.experts for own in modules.values()} - {1})
    if len(counts) != 1 or not any(own.gate is not None for own in modules.values()):
        found = f"modules disagree on the number of experts: {counts}" if counts else "no module has experts"
        raise AdapterError(f"{WEIGHTS}: {found}: {_AGAIN}")
    if top_k > counts[0]:
        raise AdapterError(f"{CONFIG}: top_k is {top_k}, and there are {counts[0]} experts: {_AGAIN}")
    heads = list(checkpoint.heads.weights) if checkpoint.heads else ["task0"]
    tasks = name_tasks(None, options.tasks, task_names(config) or heads)
    return MixLoraAdapter(
        tasks=tasks,
        heads=checkpoint.heads,
        fingerprint=checkpoint.fingerprint,
        changes=dict.fromkeys(tasks, checkpoint.whole) if checkpoint.saved else {},
        trained_as=(checkpoint.trained_as,),
        modules=modules,
        top_k=top_k,
    )


def _module(name: str, parts: dict[str, np.ndarray], config: Mapping[str, Any]) -> MixLoraModule:
    a, b = take(parts, name, "moe_lora_A", 3), take(parts, name, "moe_lora_B", 3)
    gate = take(parts, name, "moe_gate", 2) if "moe_gate" in parts else None
    refuse_rest(parts, name)
    count, rank, width = a.shape
    wanted: list[tuple[str, np.ndarray, tuple[int, ...]]] = [("moe_lora_B", b, (count, b.shape[1], rank))]
    wanted += [] if gate is None else [("moe_gate", gate, (count, width))]
    for key, array, shape in wanted:
        if array.shape != shape:
            said = f"{name}.{key} has shape {list(array.shape)}; with the other tensors it is {list(shape)}"
            raise AdapterError(f"{WEIGHTS}: {said}: {_AGAIN}")
    return MixLoraModule(a, b, gate, number(config, "scaling" if count == 1 else "expert_scaling"))
