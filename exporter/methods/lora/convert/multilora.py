"""MultiLoRA (https://arxiv.org/abs/2311.11501): several LoRAs side by side, each with a scale for every output.

    y += (alpha / r) sum over i of s_i * (B_i A_i x)        A [n, r, in], B [n, out, r], s [n, out]

That is one LoRA of rank n r, whose alpha is n times as large. What is read is what the code of MTL-LoRA saves of it; no
code of the paper's own authors is known. A ``lora_scaler``, where it is saved, is not used. (pUmpKin-Co/MTL-LoRA,
src/adapter/multilora.py)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import AdapterError
from eptx.exporter.methods.lora.convert.plain import ALPHA, Factors, plain
from eptx.exporter.methods.released import Conversion, check_shape, found, positive, refuse_others

_SCALING = ".lora_scaling"


def _matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    return any(name.endswith(_SCALING) for name in names)


def _convert(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    refuse_others(tensors, (".lora_A", ".lora_B", _SCALING, ".lora_scaler"))
    layers = [name.removesuffix(_SCALING) for name in tensors if name.endswith(_SCALING)]
    counts = {len(found(tensors, layer + _SCALING, 2)) for layer in layers}
    if len(counts) != 1:
        raise AdapterError(f"layers disagree on how many LoRAs they have: {sorted(counts)}: give the file of one model")
    factors = {layer: _layer(layer, tensors) for layer in layers}
    return plain(factors, positive(config, "lora_alpha") * counts.pop())


def _layer(layer: str, tensors: Mapping[str, np.ndarray]) -> Factors:
    down, up = (found(tensors, f"{layer}.lora_{which}", 3) for which in "AB")
    scaling = found(tensors, layer + _SCALING, 2)
    count, rank, width = down.shape
    check_shape(f"{layer}.lora_B", up, (count, scaling.shape[1], rank), "with the other tensors")
    check_shape(f"{layer}{_SCALING}", scaling, (count, up.shape[1]), "with the other tensors")
    scaled = scaling[:, :, None].astype(np.float64) * up
    return down.reshape(count * rank, width).astype(np.float64), np.concatenate(list(scaled), axis=1)


MULTILORA = Conversion("MultiLoRA", _matches, _convert, ALPHA)
