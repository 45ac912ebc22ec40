"""The trained MTL-LoRA model: the formula of the released code, in a PEFT tuner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from eptx.exporter.methods.formula import FormulaReference


def _update(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], x: Tensor, ids: Tensor) -> Tensor:
    """pUmpKin-Co/MTL-LoRA, src/adapter/mlora.py, in the order in which it computes."""
    down, experts = tensors["lora_A"][0], tensors["lora_B"]
    between = tensors["lora_lambdas"][ids]
    if between.ndim == 2:
        between = torch.diag_embed(between)
    shares = torch.softmax(tensors["lora_B_w"][ids] / settings["temperature"], -1)
    up = torch.einsum("bn,nor->bor", shares, experts)
    hidden = torch.einsum("bsr,bqr->bsq", x @ down.T, between)
    update: Tensor = torch.einsum("bsr,bor->bso", hidden, up) * (settings["lora_alpha"] / down.shape[0])
    scaler = tensors.get("lora_scaler")
    return update if scaler is None else update * scaler.sigmoid()


class MtlLoraReference(FormulaReference, formula=_update):
    """One adapter of all tasks."""

    name: ClassVar[str] = "mtl_lora"
    title: ClassVar[str] = "MTL-LoRA"
    tensor_part: ClassVar[str] = ".lora_"
    router_parts: ClassVar[tuple[str, ...]] = ("lora_B_w", "lora_lambdas")
    by_task: ClassVar[str] = "lora_B_w"


REFERENCE = MtlLoraReference()
