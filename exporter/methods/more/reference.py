"""The trained MoRE model: the formula of the released code, in a PEFT tuner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from eptx.exporter.methods.formula import FormulaReference


def _update(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], x: Tensor, ids: Tensor) -> Tensor:
    """NLPfreshman0/MoRE, peft/tuners/lora/layer.py: ranks past the one that the gate chooses count nothing."""
    down, up = tensors["lora_A.weight"], tensors["lora_B.weight"]
    embedded = tensors["lora_task_embedding.weight"][ids]
    scores = torch.nn.functional.linear(embedded, tensors["lora_gate.weight"], tensors["lora_gate.bias"]).softmax(1)
    ranks = torch.arange(len(down))
    used = (ranks <= scores.argmax(1, keepdim=True)).to(x.dtype)
    if settings["rank_scaling"] == "eighths":
        used = used * (0.125 * (ranks + 1).to(x.dtype)) ** 2
    hidden = torch.nn.functional.linear(x, down) * used[:, None, :]
    update: Tensor = torch.nn.functional.linear(hidden, up) * (settings["lora_alpha"] / len(down))
    return update


class MoreReference(FormulaReference, formula=_update):
    """One adapter of all tasks."""

    name: ClassVar[str] = "more"
    title: ClassVar[str] = "MoRE"
    tensor_part: ClassVar[str] = ".lora_"
    router_parts: ClassVar[tuple[str, ...]] = ("lora_gate", "lora_task_embedding")
    by_task: ClassVar[str] = "lora_task_embedding.weight"


REFERENCE = MoreReference()
