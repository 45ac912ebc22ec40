"""Reads MoRE adapters that ``eptx convert`` has made of what the released code saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx._one_line import shown
from eptx.errors import AdapterError
from eptx.exporter.adapters.checkpoint import (
    CONFIG,
    Checkpoint,
    ReadOptions,
    number,
    refuse_rest,
    refuse_unknown,
    take,
)
from eptx.exporter.methods.mixture import read_mixture
from eptx.exporter.methods.more.adapter import EXPERTS, MoreAdapter, MoreModule
from eptx.exporter.methods.one_folder import CONVERT_AGAIN, check_shapes


def matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    """As ``eptx convert`` calls it; the released code calls it LORA."""
    return config.get("peft_type") == "MORE"


def read(checkpoints: Sequence[Checkpoint], options: ReadOptions) -> MoreAdapter:
    """The MoRE adapter of one folder.

    Raises:
        AdapterError: tensors or settings are missing, extra, or do not fit each other.
        NotSupportedError: a setting that eptx does not know, by name.
        UsageError: several folders were given.
    """
    for checkpoint in checkpoints:
        refuse_unknown(checkpoint.config, ("lora_alpha", "rank_scaling"))
    return read_mixture(MoreAdapter, "MoRE", checkpoints, options, "lora_", _module)


def _module(name: str, parts: dict[str, np.ndarray], config: Mapping[str, Any]) -> MoreModule:
    a, b = (take(parts, name, f"lora_{which}.weight", 2) for which in "AB")
    embeddings, gate = take(parts, name, "lora_task_embedding.weight", 2), take(parts, name, "lora_gate.weight", 2)
    bias = take(parts, name, "lora_gate.bias", 1)
    refuse_rest(parts, name)
    rank, width = a.shape
    wanted = (
        ("lora_B.weight", b, (len(b), rank)),
        ("lora_task_embedding.weight", embeddings, (len(embeddings), width)),
        ("lora_gate.weight", gate, (EXPERTS, width)),
        ("lora_gate.bias", bias, (EXPERTS,)),
    )
    check_shapes(name, wanted)
    scaling = config.get("rank_scaling")
    if scaling not in ("eighths", "none"):
        raise AdapterError(f"{CONFIG}: rank_scaling must be eighths or none, found {shown(scaling)}: {CONVERT_AGAIN}")
    scale = number(config, "lora_alpha") / rank
    return MoreModule(a, b, embeddings, gate, bias, scale, scaling == "eighths")
