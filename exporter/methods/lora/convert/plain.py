"""A plain LoRA as PEFT saves it, of the factors of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from eptx.errors import AdapterError
from eptx.exporter.adapters.adapter import natural_key
from eptx.exporter.methods.released import found

#: The setting that every fold needs, and what it is.
ALPHA = {"lora_alpha": "the scale of the update is lora_alpha / r"}

#: A layer's A [r, in] and B [out, r], float64.
Factors = tuple[np.ndarray, np.ndarray]


def plain(factors: Mapping[str, Factors], alpha: float) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors and the configuration of a plain LoRA.

    Args:
        factors: layer -> its factors.
        alpha: the scale of all layers is alpha / r.

    Raises:
        AdapterError: layers differ in their rank, so that one `alpha` is not of all.
    """
    names = sorted(factors, key=natural_key)
    ranks = {name: len(factors[name][0]) for name in names}
    other = next((name for name in names if ranks[name] != ranks[names[0]]), None)
    if other is not None:
        said = f"{names[0]} has rank {ranks[names[0]]}, {other} {ranks[other]}"
        raise AdapterError(f"{said}: one lora_alpha is not of both; give a file of one training")
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        a, b = factors[name]
        tensors |= {
            f"{name}.lora_A.weight": a.astype(np.float32),
            f"{name}.lora_B.weight": b.astype(np.float32),
        }
    return tensors, {"peft_type": "LORA", "r": ranks[names[0]], "lora_alpha": alpha, "target_modules": names}


def pair(tensors: Mapping[str, np.ndarray], a: str, b: str) -> Factors:
    """A [r, in] and B [out, r] by their names, float64.

    Raises:
        AdapterError: one is missing, or they do not fit each other.
    """
    down, up = found(tensors, a, 2).astype(np.float64), found(tensors, b, 2).astype(np.float64)
    if up.shape[1] != len(down):
        raise AdapterError(f"{b} has rank {up.shape[1]}, {a} {len(down)}: save the adapter again")
    return down, up
