"""Reads LoRA adapters as PEFT saves them: one folder, or several on one base, each a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from eptx.errors import AdapterError
from eptx.exporter.adapters.adapter import name_tasks, natural_key
from eptx.exporter.adapters.checkpoint import (
    AGAIN,
    FILES,
    WEIGHTS,
    Checkpoint,
    ReadOptions,
    flag,
    group_by_module,
    refuse_rest,
    take,
)
from eptx.exporter.adapters.heads import heads_of
from eptx.exporter.methods.lora.adapter import LoraAdapter, joined
from eptx.exporter.methods.lora.module import LoraModule
from eptx.exporter.methods.lora.parameters import Targets
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
    heads = heads_of(names, own, [checkpoint.heads for checkpoint in checkpoints])
    parts = [of_folder(name, checkpoint) for name, checkpoint in zip(names, checkpoints, strict=True)]
    return replace(joined(parts), heads=heads)


def of_folder(task: str, checkpoint: Checkpoint, targets: Targets | None = None) -> LoraAdapter:
    """The adapter of one folder, which is one task.

    Args:
        task: its name.
        checkpoint: the folder.
        targets: the parameters that ``target_parameters`` names; until the base has said which these are, such a folder
            stands in `LoraAdapter.unplaced`, and nothing more is known of it.

    Raises:
        AdapterError, NotSupportedError: see `read`.
    """
    check(checkpoint.config, checkpoint.name)
    waits = bool(checkpoint.config.get("target_parameters")) and targets is None
    with in_folder(checkpoint.name, FILES):
        if not checkpoint.tensors:
            raise AdapterError(f"{WEIGHTS}: holds no LoRA factors: {AGAIN}")
        changes, linear = (checkpoint.whole, {}) if waits else take_tensors(checkpoint, targets or {})
        modules = _linear(checkpoint.config, linear, targets or {})
    return LoraAdapter(
        tasks=(task,),
        heads=None,
        fingerprint=checkpoint.fingerprint,
        fingerprints=(checkpoint.fingerprint,),
        changes={task: changes} if changes else {},
        trained_as=(checkpoint.trained_as,),
        by_task={task: modules},
        unplaced={task: checkpoint} if waits else {},
    )


def _linear(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], targets: Targets) -> dict[str, LoraModule]:
    """The linear layers of a folder."""
    grouped = group_by_module(tensors, "lora_")
    keys = {name: parameter.key for name, parameters in targets.items() for parameter in parameters}
    return {
        name: _module(name, grouped[name], config, keys.get(name, name)) for name in sorted(grouped, key=natural_key)
    }


def _module(name: str, parts: dict[str, np.ndarray], config: Mapping[str, Any], key: str) -> LoraModule:
    """One module's factors; `key` is what the patterns of settings are compared with.

    Raises:
        AdapterError: a tensor is missing, extra, or does not fit the others.
    """
    for each in [each for each in parts if each.startswith(_OF_TRAINING)]:
        del parts[each]
    a, b = (_whole(name, each, take(parts, name, f"lora_{each}.weight", 2), config) for each in "AB")
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
    for each, vector in vectors.items():
        wanted = a.shape[0] if each == "diagonal" else b.shape[0]
        if vector is not None and len(vector) != wanted:
            raise AdapterError(f"{WEIGHTS}: {name}: {_NAMES[each]} has {len(vector)} entries, not {wanted}: {AGAIN}")
    return LoraModule(a, b, scale_of(key, a.shape[0], config), start=began, **vectors)


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
