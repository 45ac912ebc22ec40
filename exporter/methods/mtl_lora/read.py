"""Reads MTL-LoRA adapters that ``eptx convert`` has made of what the released code saves."""

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
from eptx.exporter.methods.mixture import read_mixture
from eptx.exporter.methods.mtl_lora.adapter import MtlLoraAdapter, MtlLoraModule
from eptx.exporter.methods.one_folder import check_shapes


def matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    """As ``eptx convert`` calls it; the released code saves no configuration."""
    return config.get("peft_type") == "MTL_LORA"


def read(checkpoints: Sequence[Checkpoint], options: ReadOptions) -> MtlLoraAdapter:
    """The MTL-LoRA adapter of one folder.

    Raises:
        AdapterError: tensors or settings are missing, extra, or do not fit each other.
        NotSupportedError: a setting that eptx does not know, by name.
        UsageError: several folders were given.
    """
    for checkpoint in checkpoints:
        refuse_unknown(checkpoint.config, ("lora_alpha", "temperature"))
    return read_mixture(MtlLoraAdapter, "MTL-LoRA", checkpoints, options, "lora_", _module)


def _module(name: str, parts: dict[str, np.ndarray], config: Mapping[str, Any]) -> MtlLoraModule:
    a, b = take(parts, name, "lora_A", 3), take(parts, name, "lora_B", 3)
    diagonal = "lora_lambdas" in parts and parts["lora_lambdas"].ndim == 2
    between, logits = take(parts, name, "lora_lambdas", 2 if diagonal else 3), take(parts, name, "lora_B_w", 2)
    scaler = take(parts, name, "lora_scaler", 0) if "lora_scaler" in parts else None
    refuse_rest(parts, name)
    tasks, experts = logits.shape
    rank, width = a.shape[1:]
    wanted = (
        ("lora_A", a, (1, rank, width)),
        ("lora_B", b, (experts, b.shape[1], rank)),
        ("lora_lambdas", between, (tasks, rank) if diagonal else (tasks, rank, rank)),
    )
    check_shapes(name, wanted)
    alpha, temperature = (number(config, key) for key in ("lora_alpha", "temperature"))
    return MtlLoraModule(a, b, between, logits, scaler, alpha / rank, temperature)
