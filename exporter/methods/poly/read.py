"""Reads Poly adapters as PEFT saves them: one folder holds all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import AdapterError, UsageError
from eptx.exporter.adapters.adapter import name_tasks, natural_key
from eptx.exporter.adapters.checkpoint import (
    AGAIN,
    CONFIG,
    WEIGHTS,
    Checkpoint,
    ReadOptions,
    group_by_module,
    number,
    refuse_options,
    refuse_rest,
    refuse_unknown,
    take,
    task_names,
)
from eptx.exporter.methods.poly.adapter import PolyAdapter, PolyModule

#: What the tensors say anyway, or only training asks for.
_KNOWN = ("r", "n_tasks", "n_skills", "n_splits", "target_modules", "exclude_modules", "init_weights")


def matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    """PEFT's own ``peft_type``."""
    return config.get("peft_type") == "POLY"


def read(checkpoints: Sequence[Checkpoint], options: ReadOptions) -> PolyAdapter:
    """The Poly adapter of one folder.

    Raises:
        AdapterError: tensors are missing, extra, or do not fit each other or the configuration.
        NotSupportedError: a setting that eptx does not know, by name.
        UsageError: several folders were given.
    """
    if len(checkpoints) != 1:
        raise UsageError("a Poly adapter holds all its tasks: give one adapter folder")
    checkpoint = checkpoints[0]
    refuse_options(checkpoint.config, {"poly_type": ("poly",)})
    refuse_unknown(checkpoint.config, (*_KNOWN, "poly_type"))
    grouped = group_by_module(checkpoint.tensors, "poly_")
    modules = {name: _module(name, grouped[name], checkpoint.config) for name in sorted(grouped, key=natural_key)}
    if not modules:
        raise AdapterError(f"{WEIGHTS}: holds no Poly factors: {AGAIN}")
    tasks = name_tasks(int(number(checkpoint.config, "n_tasks")), options.tasks, task_names(checkpoint.config))
    return PolyAdapter(
        tasks=tasks,
        heads=checkpoint.heads,
        fingerprint=checkpoint.fingerprint,
        changes=dict.fromkeys(tasks, checkpoint.whole) if checkpoint.saved else {},
        trained_as=(checkpoint.trained_as,),
        by_task={
            task: {name: module.update(index) for name, module in modules.items()} for index, task in enumerate(tasks)
        },
        modules=modules,
    )


def _module(name: str, parts: dict[str, np.ndarray], config: Mapping[str, Any]) -> PolyModule:
    a, b = take(parts, name, "poly_lora_A", 4), take(parts, name, "poly_lora_B", 4)
    logits = take(parts, name, "poly_router.module_logits", 2)
    refuse_rest(parts, name)
    tasks, skills, splits, rank = (int(number(config, key)) for key in ("n_tasks", "n_skills", "n_splits", "r"))
    for key, shape, wanted in (
        ("poly_lora_A", a.shape, (splits, skills, a.shape[2], rank)),
        ("poly_lora_B", b.shape, (splits, skills, rank, b.shape[3])),
        ("poly_router.module_logits", logits.shape, (tasks, splits * skills)),
    ):
        if shape != wanted:
            said = f"{name}.{key} has shape {list(shape)}; by {CONFIG} it is {list(wanted)}"
            raise AdapterError(f"{WEIGHTS}: {said}: {AGAIN}")
    return PolyModule(a, b, logits.reshape(tasks, splits, skills))
