"""Reads LoRA adapters as PEFT saves them: one folder, or several on one base, each a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import AdapterError
from eptx.exporter.adapters.adapter import TaskHeads, name_tasks, natural_key
from eptx.exporter.adapters.checkpoint import (
    HEADS,
    WEIGHTS,
    Checkpoint,
    ReadOptions,
    combine,
    flag,
    group_by_module,
    refuse_options,
    refuse_rest,
    take,
)
from eptx.exporter.methods.lora.adapter import LoraAdapter, LoraModule
from eptx.exporter.methods.lora.tensors import take_tensors
from eptx.exporter.methods.patterns import scale_of

#: Settings that change what the layers compute or which weights the base has; anything else is refused by name.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "bias": ("none", None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "layer_replication": (None, []),
    "loftq_config": ({}, None),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal", None),
    "target_parameters": (None, []),
    "use_qalora": (False, None),
    "alora_invocation_tokens": (None,),
    "use_bdlora": (False, None),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
}


def matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    """PEFT's own ``peft_type``."""
    return config.get("peft_type") == "LORA"


def read(checkpoints: Sequence[Checkpoint], options: ReadOptions) -> LoraAdapter:
    """LoRA adapters that share a base, each a task.

    Raises:
        AdapterError: tensors are missing, extra, or do not fit each other.
        NotSupportedError: a setting that eptx does not reproduce, by name.
    """
    own = [checkpoint.name for checkpoint in checkpoints]
    names = name_tasks(len(checkpoints), options.tasks, own if len(checkpoints) > 1 else None)
    parts = {name: take_tensors(checkpoint) for name, checkpoint in zip(names, checkpoints, strict=True)}
    adapter = LoraAdapter(
        tasks=names,
        heads=_heads(checkpoints),
        fingerprint=combine([checkpoint.fingerprint for checkpoint in checkpoints]),
        changes={name: changes for name, (changes, _) in parts.items() if changes},
        trained_as=tuple(checkpoint.trained_as for checkpoint in checkpoints),
        by_task={
            name: _read_one(checkpoint, parts[name][1]) for name, checkpoint in zip(names, checkpoints, strict=True)
        },
    )
    _check_common_widths(adapter)
    return adapter


def _read_one(checkpoint: Checkpoint, tensors: Mapping[str, np.ndarray]) -> dict[str, LoraModule]:
    refuse_options(checkpoint.config, _HARMLESS)
    grouped = group_by_module(tensors, "lora_")
    modules = {name: _module(name, grouped[name], checkpoint.config) for name in sorted(grouped, key=natural_key)}
    if not checkpoint.tensors:
        raise AdapterError(f"{WEIGHTS}: holds no LoRA factors")
    return modules


def _module(name: str, parts: dict[str, np.ndarray], config: Mapping[str, Any]) -> LoraModule:
    a = take(parts, name, "lora_A.weight", 2)
    b = take(parts, name, "lora_B.weight", 2)
    magnitude = take(parts, name, "lora_magnitude_vector", 1) if flag(config, "use_dora") else None
    refuse_rest(parts, name)
    if b.shape[1] != a.shape[0]:
        raise AdapterError(f"{WEIGHTS}: {name}: lora_B.weight has rank {b.shape[1]}, lora_A.weight {a.shape[0]}")
    if magnitude is not None and magnitude.shape[0] != b.shape[0]:
        raise AdapterError(
            f"{WEIGHTS}: {name}: lora_magnitude_vector has {magnitude.shape[0]} entries, not {b.shape[0]}"
        )
    return LoraModule(a, b, scale_of(name, a.shape[0], config), magnitude)


def _heads(checkpoints: Sequence[Checkpoint]) -> TaskHeads | None:
    """Heads in a file of their own, of a single folder."""
    beside = next((checkpoint for checkpoint in checkpoints if checkpoint.heads is not None), None)
    if beside is not None and len(checkpoints) > 1:
        other = "other LoRA adapters beside it"
        raise AdapterError(f"{beside.name}: has {HEADS} and {other}; eptx cannot tell which heads to use")
    return None if beside is None else beside.heads


def _check_common_widths(adapter: LoraAdapter) -> None:
    for module in adapter.module_names:
        shapes = {(f.a.shape[1], f.b.shape[0]) for f in adapter.of_module(module).values()}
        if len(shapes) != 1:
            raise AdapterError(f"the LoRA adapters are not of one base: {module} has widths {sorted(shapes)}")
