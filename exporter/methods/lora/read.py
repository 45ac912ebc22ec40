"""Reads LoRA adapters as PEFT saves them: one folder, or several on one base, each a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import AdapterError
from eptx.exporter.adapters.adapter import TaskHeads, name_tasks, natural_key
from eptx.exporter.adapters.checkpoint import (
    AGAIN,
    FILES,
    HEADS,
    WEIGHTS,
    Checkpoint,
    ReadOptions,
    flag,
    group_by_module,
    refuse_rest,
    take,
)
from eptx.exporter.methods.lora.adapter import LoraAdapter, joined
from eptx.exporter.methods.lora.module import LoraModule
from eptx.exporter.methods.lora.settings import blocks, check, start
from eptx.exporter.methods.lora.tensors import take_tensors
from eptx.exporter.methods.patterns import scale_of
from eptx.files.in_folder import in_folder

#: What training alone needs of a module.
_OF_TRAINING = ("lora_velora_embed", "lora_monteclora_sampler")
#: The tensors of `LoraModule`'s vectors.
_NAMES = {"magnitude": "lora_magnitude_vector", "bias": "lora_B.bias", "diagonal": "lora_diag"}


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
    with in_folder(checkpoint.name, FILES):
        changes, linear = take_tensors(checkpoint)
        modules = _read_one(checkpoint, linear)
    return LoraAdapter(
        tasks=(task,),
        heads=None,
        fingerprint=checkpoint.fingerprint,
        fingerprints=(checkpoint.fingerprint,),
        changes={task: changes} if changes else {},
        trained_as=(checkpoint.trained_as,),
        by_task={task: modules},
    )


def _read_one(checkpoint: Checkpoint, tensors: Mapping[str, np.ndarray]) -> dict[str, LoraModule]:
    check(checkpoint.config, checkpoint.name)
    grouped = group_by_module(tensors, "lora_")
    modules = {name: _module(name, grouped[name], checkpoint.config) for name in sorted(grouped, key=natural_key)}
    if not checkpoint.tensors:
        raise AdapterError(f"{WEIGHTS}: holds no LoRA factors: {AGAIN}")
    return modules


def _module(name: str, parts: dict[str, np.ndarray], config: Mapping[str, Any]) -> LoraModule:
    """One module's factors.

    Raises:
        AdapterError: a tensor is missing, extra, or does not fit the others.
    """
    for key in [key for key in parts if key.startswith(_OF_TRAINING)]:
        del parts[key]
    _refuse_adapter_name(name, parts)
    a, b = (_whole(name, key, take(parts, name, f"lora_{key}.weight", 2), config) for key in "AB")
    began = start(config)
    vectors = {
        "magnitude": _vector(name, parts, _NAMES["magnitude"], flag(config, "use_dora")),
        "bias": _vector(name, parts, _NAMES["bias"], flag(config, "lora_bias")),
        "diagonal": _vector(name, parts, _NAMES["diagonal"], began == "kasa"),
    }
    refuse_rest(parts, name)
    if b.shape[1] != a.shape[0]:
        ranks = f"lora_B.weight has rank {b.shape[1]}, lora_A.weight {a.shape[0]}"
        raise AdapterError(f"{WEIGHTS}: {name}: {ranks}: {AGAIN}")
    for key, vector in vectors.items():
        wanted = a.shape[0] if key == "diagonal" else b.shape[0]
        if vector is not None and len(vector) != wanted:
            raise AdapterError(f"{WEIGHTS}: {name}: {_NAMES[key]} has {len(vector)} entries, not {wanted}: {AGAIN}")
    return LoraModule(a, b, scale_of(name, a.shape[0], config), start=began, **vectors)


def _vector(module: str, parts: dict[str, np.ndarray], key: str, expected: bool) -> np.ndarray | None:
    """A vector that a setting says is there; PEFT reads DoRA's under either name."""
    found = key if key in parts or f"{key}.weight" not in parts else f"{key}.weight"
    return take(parts, module, found, 1) if expected else None


def _whole(module: str, key: str, factor: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """A factor as a matrix; BD-LoRA's file holds the blocks of its diagonal one below the other."""
    count = blocks(config, module, key.lower())
    if count == 1:
        return factor
    if len(factor) % count:
        problem = f"{module}.lora_{key}.weight has {len(factor)} rows, not {count} blocks of them"
        raise AdapterError(f"{WEIGHTS}: {problem}: {AGAIN}")
    rows, columns = len(factor) // count, factor.shape[1]
    whole = np.zeros((len(factor), columns * count), factor.dtype)
    for block in range(count):
        own = slice(block * rows, (block + 1) * rows)
        whole[own, block * columns : (block + 1) * columns] = factor[own]
    return whole


def _refuse_adapter_name(module: str, parts: Mapping[str, np.ndarray]) -> None:
    """PEFT leaves the adapter's name out of the names that it saves, and does not load tensors that have it."""
    for key in parts:
        first, *rest = key.split(".")
        if first in ("lora_A", "lora_B") and len(rest) == 2:
            raise AdapterError(
                f"{WEIGHTS}: {module}.{key} has the adapter's name {rest[0]!r} in it, so that PEFT would not load it: "
                "save the adapter with PEFT's save_pretrained"
            )


def _heads(checkpoints: Sequence[Checkpoint]) -> TaskHeads | None:
    """Heads in a file of their own, of a single folder."""
    beside = next((checkpoint for checkpoint in checkpoints if checkpoint.heads is not None), None)
    if beside is not None and len(checkpoints) > 1:
        other = "other LoRA adapters beside it"
        raise AdapterError(
            f"{beside.name}: has {HEADS} and {other}; eptx cannot tell which heads to use: export it by itself"
        )
    return None if beside is None else beside.heads
