"""Reads Poly adapters as PEFT saves them: one folder holds all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.exporter.adapters.checkpoint import (
    AGAIN,
    CONFIG,
    Checkpoint,
    ReadOptions,
    number,
    refuse_options,
    refuse_rest,
    refuse_unknown,
    take,
)
from eptx.exporter.methods.mixture import read_mixture
from eptx.exporter.methods.one_folder import check_shapes
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
    for checkpoint in checkpoints:
        refuse_options(checkpoint.config, {"poly_type": ("poly",)})
        refuse_unknown(checkpoint.config, (*_KNOWN, "poly_type"))
    return read_mixture(PolyAdapter, "Poly", checkpoints, options, "poly_", _module)


def _module(name: str, parts: dict[str, np.ndarray], config: Mapping[str, Any]) -> PolyModule:
    a, b = take(parts, name, "poly_lora_A", 4), take(parts, name, "poly_lora_B", 4)
    logits = take(parts, name, "poly_router.module_logits", 2)
    refuse_rest(parts, name)
    tasks, skills, splits, rank = (int(number(config, key)) for key in ("n_tasks", "n_skills", "n_splits", "r"))
    wanted = (
        ("poly_lora_A", a, (splits, skills, a.shape[2], rank)),
        ("poly_lora_B", b, (splits, skills, rank, b.shape[3])),
        ("poly_router.module_logits", logits, (tasks, splits * skills)),
    )
    check_shapes(name, wanted, by=f"by {CONFIG}", todo=AGAIN)
    return PolyModule(a, b, logits.reshape(tasks, splits, skills))
