"""Reads EPT adapters, as the released code saves them and as eptx's own training does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx._one_line import shown
from eptx.errors import AdapterError, UsageError
from eptx.exporter.adapters.adapter import name_tasks, natural_key
from eptx.exporter.adapters.checkpoint import (
    CONFIG,
    WEIGHTS,
    Checkpoint,
    ReadOptions,
    group_by_module,
    refuse_options,
    refuse_rest,
    take,
    task_names,
)
from eptx.exporter.methods.ept.adapter import EptAdapter, EptModule
from eptx.exporter.methods.one_folder import common_fields
from eptx.exporter.methods.patterns import scale_of

_KERNELS = "lora_expert_kernels."


def matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    """The released code saves ``peft_type: LORA``; its expert kernels tell."""
    return config.get("peft_type") == "EPT" or any(f".{_KERNELS}" in name for name in names)


def read(checkpoints: Sequence[Checkpoint], options: ReadOptions) -> EptAdapter:
    """The EPT adapter of one folder.

    Raises:
        AdapterError: tensors are missing, extra, or do not fit each other.
        UsageError: several folders, or no usable top-k.
    """
    if len(checkpoints) != 1:
        raise UsageError("an EPT adapter holds all its tasks: give one adapter folder")
    checkpoint = checkpoints[0]
    refuse_options(
        checkpoint.config, {"use_dora": (False, None), "fan_in_fan_out": (False, None), "bias": ("none", None)}
    )
    grouped = group_by_module(checkpoint.tensors, "lora_")
    modules = {name: _module(name, dict(grouped[name]), checkpoint.config) for name in sorted(grouped, key=natural_key)}
    tasks = _tasks(modules, checkpoint, options)
    return EptAdapter(
        **common_fields(checkpoint, tasks),
        modules=modules,
        top_k=_top_k(modules, checkpoint.config, options),
    )


def _module(name: str, parts: dict[str, np.ndarray], config: Mapping[str, Any]) -> EptModule:
    a = take(parts, name, "lora_A.weight", 2)
    b = take(parts, name, "lora_B.weight", 2)
    gate_weight = take(parts, name, "lora_gate.0.weight", 2)
    gate_bias = take(parts, name, "lora_gate.0.bias", 1)
    task_embedding = take(parts, name, "lora_task_embedding.weight", 2)
    kernels: list[np.ndarray] = []
    while f"{_KERNELS}{len(kernels)}" in parts:
        kernels.append(_kernel(name, take(parts, name, f"{_KERNELS}{len(kernels)}", 4)))
    refuse_rest(parts, name)
    if not kernels:
        raise AdapterError(f"{WEIGHTS}: {name} has no {_KERNELS}0")
    served = tuple(kernels[: gate_weight.shape[0]])  # the released code saves more, and never chooses them
    scale = scale_of(name, a.shape[0], config)
    module = EptModule(a, b, served, gate_weight, gate_bias, task_embedding, scale)
    _check(name, module)
    return module


def _kernel(module: str, kernel: np.ndarray) -> np.ndarray:
    ones, _, size, last = kernel.shape
    if ones != 1 or last != 1:
        raise AdapterError(f"{WEIGHTS}: a kernel of {module} has shape {list(kernel.shape)}, not [1, out // s, s, 1]")
    if size < 2:
        raise AdapterError(f"{WEIGHTS}: a kernel of {module} has size {size}; the released code has 2 or more")
    return kernel[0, :, :, 0]


def _check(name: str, module: EptModule) -> None:
    width, rank, experts = module.in_features, module.rank, len(module.kernels)
    gate, embedding = module.gate_weight.shape, module.task_embedding.shape
    for holds, message in (
        (module.a.shape[1] == width // 2, f"lora_A.weight {list(module.a.shape)} is not [R, in // 2] with in {width}"),
        (module.b.shape[1] == rank, f"lora_B.weight has rank {module.b.shape[1]}, lora_A.weight {rank}"),
        (gate[0] == experts, f"lora_gate.0.weight serves {gate[0]} experts, there are {experts} kernels"),
        (module.gate_bias.shape[0] == experts, f"lora_gate.0.bias serves {module.gate_bias.shape[0]}, not {experts}"),
        (embedding[1] == width, f"lora_task_embedding.weight is {embedding[1]} wide, lora_gate.0.weight {width}"),
        (len(module.out_range()) > 0, "lora_B.weight and the kernels fit no common output width"),
    ):
        if not holds:
            raise AdapterError(f"{WEIGHTS}: {name}: {message}")


def _tasks(modules: Mapping[str, EptModule], checkpoint: Checkpoint, options: ReadOptions) -> tuple[str, ...]:
    counts = {module.task_embedding.shape[0] for module in modules.values()}
    if len(counts) != 1:
        raise AdapterError(f"{WEIGHTS}: modules disagree on the number of tasks: {sorted(counts)}")
    return name_tasks(counts.pop(), options.tasks, task_names(checkpoint.config))


def _top_k(modules: Mapping[str, EptModule], config: Mapping[str, Any], options: ReadOptions) -> int:
    """Top-k is in no file of the released code: asked for, never guessed; 0 where it may stay unknown."""
    given, saved = options.top_k, config.get("top_k")
    top_k = given if given is not None else saved
    if top_k is None and options.incomplete:
        return 0
    if top_k is None:
        raise UsageError(f"{CONFIG} does not say how many experts a task uses: give --top-k")
    if given is not None and given < 1:
        raise UsageError(f"--top-k {given}: a task uses at least one expert")
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise AdapterError(f"{CONFIG}: top_k must be a positive integer, found {shown(top_k)}")
    if given is not None and saved is not None and given != saved:
        raise UsageError(f"--top-k {given} contradicts {CONFIG}, which says {saved}")
    for name, module in modules.items():
        if top_k > len(module.kernels):
            raise AdapterError(f"top-k is {top_k}, but {name} has only {len(module.kernels)} experts")
    return top_k
