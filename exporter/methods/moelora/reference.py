"""The trained MOELoRA model: the formula of the released code, in a PEFT tuner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from eptx.exporter.methods.formula import FormulaReference


def _update(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], x: Tensor, ids: Tensor) -> Tensor:
    """liuqidong07/MOELoRA-peft, src/MLoRA/peft/tuners/mmoeloraS.py: expert by expert, each by its share.

    The shares are of each row. The released code shapes them for ChatGLM, whose states are [positions, batch, width].
    """
    down, up = tensors["lora_A"], tensors["lora_B"]
    shares = torch.nn.functional.linear(tensors["lora_task_embedding"][ids], tensors["lora_gate"]).softmax(1)
    scaling = settings["lora_alpha"] / (down.shape[0] * down.shape[1])
    update = x.new_zeros(*x.shape[:-1], up.shape[1])
    for expert, (a, b) in enumerate(zip(down, up, strict=True)):
        update = update + torch.nn.functional.linear(x @ a.T, b) * scaling * shares[:, expert, None, None]
    return update


class MoeLoraReference(FormulaReference, formula=_update):
    """One adapter of all tasks."""

    name: ClassVar[str] = "moelora"
    title: ClassVar[str] = "MOELoRA"
    tensor_part: ClassVar[str] = ".lora_"
    router_parts: ClassVar[tuple[str, ...]] = ("lora_gate", "lora_task_embedding")
    by_task: ClassVar[str] = "lora_task_embedding"


REFERENCE = MoeLoraReference()
