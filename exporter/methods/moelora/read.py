"""Reads MOELoRA adapters that ``eptx convert`` has made of what the released code saves."""

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
from eptx.exporter.methods.moelora.adapter import MoeLoraAdapter, MoeLoraModule
from eptx.exporter.methods.one_folder import check_shapes


def matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    """As ``eptx convert`` calls it; the released code calls it MMOELORAS."""
    return config.get("peft_type") == "MOELORA"


def read(checkpoints: Sequence[Checkpoint], options: ReadOptions) -> MoeLoraAdapter:
    """The MOELoRA adapter of one folder.

    Raises:
        AdapterError: tensors or settings are missing, extra, or do not fit each other.
        NotSupportedError: a setting that eptx does not know, by name.
        UsageError: several folders were given.
    """
    for checkpoint in checkpoints:
        refuse_unknown(checkpoint.config, ("lora_alpha",))
    return read_mixture(MoeLoraAdapter, "MOELoRA", checkpoints, options, "lora_", _module)


def _module(name: str, parts: dict[str, np.ndarray], config: Mapping[str, Any]) -> MoeLoraModule:
    a, b = take(parts, name, "lora_A", 3), take(parts, name, "lora_B", 3)
    embeddings, gate = take(parts, name, "lora_task_embedding", 2), take(parts, name, "lora_gate", 2)
    refuse_rest(parts, name)
    experts, rank, _ = a.shape
    wanted = (
        ("lora_B", b, (experts, b.shape[1], rank)),
        ("lora_gate", gate, (experts, embeddings.shape[1])),
    )
    check_shapes(name, wanted)
    return MoeLoraModule(a, b, embeddings, gate, number(config, "lora_alpha") / (experts * rank))
