"""Reads LoRA adapters as PEFT saves them: one folder, or several on one base, each a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import AdapterError, NotSupportedError
from eptx.exporter.adapters.adapter import TaskHeads, name_tasks, natural_key
from eptx.exporter.adapters.checkpoint import (
    HEADS,
    WEIGHTS,
    Checkpoint,
    ReadOptions,
    flag,
    group_by_module,
    refuse_options,
    refuse_rest,
    take,
)
from eptx.exporter.methods.lora.adapter import LoraAdapter, LoraModule, joined
from eptx.exporter.methods.patterns import scale_of

#: Settings that change what the layers compute or which weights the base has; anything else is refused by name.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "bias": ("none", None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "layer_replication": (None, []),
    "loftq_config": ({}, None),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal", None),
    "trainable_token_indices": (None,),
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
    heads = _heads(checkpoints)
    parts = [_of_folder(name, checkpoint) for name, checkpoint in zip(names, checkpoints, strict=True)]
    return joined(parts, heads)


def _of_folder(task: str, checkpoint: Checkpoint) -> LoraAdapter:
    return LoraAdapter(
        tasks=(task,),
        heads=None,
        fingerprint=checkpoint.fingerprint,
        fingerprints=(checkpoint.fingerprint,),
        saved={task: checkpoint.saved} if checkpoint.saved else {},
        trained_as=(checkpoint.trained_as,),
        by_task={task: _read_one(checkpoint)},
    )


def _read_one(checkpoint: Checkpoint) -> dict[str, LoraModule]:
    refuse_options(checkpoint.config, _HARMLESS)
    tensors = checkpoint.tensors
    for name in tensors:
        if "lora_embedding" in name:
            raise NotSupportedError(f"{WEIGHTS}: {name}: LoRA on an embedding is not supported")
    grouped = group_by_module(tensors, "lora_")
    modules = {name: _module(name, grouped[name], checkpoint.config) for name in sorted(grouped, key=natural_key)}
    if not modules:
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
