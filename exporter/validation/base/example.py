"""The least that a model can be run on: one row, for what it looks at and not for what it answers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from eptx.bundle import TensorSpec
from eptx.manifest.names import PAST, TASK_ID

#: Free axes -> how many steps they have here: enough for every stride before the first layer.
_SIZES = {"samples": 4000, "frames": 40, "choices": 2}
#: Inputs of a bundle that its trained model has none of, or makes itself.
_OTHERS = (TASK_ID, PAST, "position_ids", "route_", "cross.", "encoder_")


def example(model: Any, given: Collection[TensorSpec], ids: Tensor) -> dict[str, Tensor]:
    """Arguments of a model's forward.

    Args:
        model: a transformers model.
        given: the inputs of the bundle's graph, for their names and sizes.
        ids: the tokens of the row, int64 [length].
    """
    config = model.config.get_text_config()
    inputs: dict[str, Tensor] = {}
    for spec in given:
        if spec.name.startswith(_OTHERS):
            continue
        sizes = [_SIZES.get(dim, len(ids)) if isinstance(dim, str) else dim for dim in (1, *spec.shape[1:])]
        if spec.name == "input_ids":
            cycled = ids[torch.arange(sizes[-1]).remainder(len(ids))]  # a graph may take one length only
            inputs[spec.name] = cycled.remainder(config.vocab_size).expand(sizes)
        elif spec.name == "token_type_ids":
            types = torch.arange(sizes[-1]).remainder(max(getattr(config, "type_vocab_size", 1), 1))
            inputs[spec.name] = types.expand(sizes)
        elif spec.name == "attention_mask":
            inputs[spec.name] = torch.ones(sizes, dtype=torch.int64)
        else:
            inputs[spec.name] = torch.zeros(sizes, dtype=getattr(torch, spec.dtype))
    if model.config.is_encoder_decoder and model.can_generate():
        inputs["decoder_input_ids"] = ids.remainder(config.vocab_size)[None]
    return inputs
