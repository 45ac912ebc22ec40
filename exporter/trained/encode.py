"""The part of an encoder-decoder's forward that runs once per text, in PyTorch.

That is the encoder, and of every layer of the decoder the projections of what the encoder gives. transformers itself
makes those with the decoder's first token, and keeps them; here they are in its cache before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

__all__ = ["decoder_call", "encode"]


def encode(model: Any, inputs: dict[str, Tensor], cache: Any) -> Any:
    """Encodes a text.

    Args:
        model: a T5 with a language model's head.
        inputs: ``input_ids`` and ``attention_mask`` [batch, length].
        cache: an empty ``EncoderDecoderCache`` to fill; None: a new one.

    Returns:
        the cache.
    """
    text = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
    hidden = model.encoder(**text).last_hidden_state
    if cache is None:
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    for i, block in enumerate(model.decoder.block):
        attention = block.layer[1].EncDecAttention
        key, value = (
            projection(hidden).unflatten(-1, (attention.n_heads, -1)).transpose(1, 2)
            for projection in (attention.k, attention.v)
        )
        cache.cross_attention_cache.update(key, value, i)
        cache.is_updated[i] = True
    return cache


def decoder_call(model: Any, inputs: dict[str, Tensor], cache: Any) -> dict[str, Any]:
    """The arguments of the model's forward for the tokens ``decoder_input_ids`` after those in the cache."""
    key = cache.cross_attention_cache.layers[0].keys
    # only its shape counts; its content is in the cache
    nothing = torch.zeros((key.shape[0], key.shape[2], model.config.d_model), dtype=key.dtype)
    rest = {name: tensor for name, tensor in inputs.items() if name != "input_ids"}
    return {**rest, "encoder_outputs": (nothing,), "past_key_values": cache, "use_cache": True}
