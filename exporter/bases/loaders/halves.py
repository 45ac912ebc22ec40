"""The two halves of a T5 as modules to trace: the encoder with the cross-attention's projections, and the decoder.

Their children have the names that they have in the transformers model, so the modules in the graphs do too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

__all__ = ["Decoder", "Encoder", "Layers", "decoder_sample", "encoder_sample"]

#: layer -> "key" and "value", each [batch, heads, positions, head size].
Layers = dict[str, dict[str, Tensor]]

_BATCH, _LENGTH, _NEW, _PAST = 2, 7, 3, 5  # none is 0, 1, the same as another, or as their sum


class Encoder(nn.Module):
    """Text to what every layer of the decoder attends to in it: the decoder then never projects it again."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config
        self.encoder = model.encoder
        self.decoder = model.decoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Layers]:
        """[batch, length] of both to the output ``cross``."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return {"cross": {str(i): _cross(block, hidden) for i, block in enumerate(self.decoder.block)}}


class Decoder(nn.Module):
    """New tokens, after those in the cache, to their logits and the longer cache."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config
        self.decoder = model.decoder
        self.lm_head = model.lm_head

    def forward(
        self, input_ids: Tensor, encoder_attention_mask: Tensor, cross: Layers, past_key_values: Layers
    ) -> dict[str, Any]:
        """[batch, n] new tokens to ``logits`` [batch, n, vocabulary] and ``present``."""
        cache: Any = EncoderDecoderCache(_cache(past_key_values), _cache(cross))
        # says that there is an encoder, and how long its text is; what it holds is in the cache
        nothing = torch.zeros(()).expand(*encoder_attention_mask.shape, self.config.d_model)
        hidden = self.decoder(
            input_ids=input_ids,
            encoder_hidden_states=nothing,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        if getattr(self.config, "scale_decoder_outputs", False):
            hidden = hidden * self.config.d_model**-0.5
        present = {str(i): {"key": x.keys, "value": x.values} for i, x in enumerate(cache.self_attention_cache.layers)}
        return {"logits": self.lm_head(hidden), "present": present}


def _cross(block: Any, hidden: Tensor) -> dict[str, Tensor]:
    attention = block.layer[1].EncDecAttention
    by_head = (*hidden.shape[:-1], attention.n_heads, attention.key_value_proj_dim)
    key, value = attention.k(hidden), attention.v(hidden)
    return {"key": key.view(by_head).transpose(1, 2), "value": value.view(by_head).transpose(1, 2)}


def _cache(layers: Layers) -> Any:
    cache: Any = DynamicCache()
    for i in range(len(layers)):
        cache.update(layers[str(i)]["key"], layers[str(i)]["value"], i)
    return cache


def encoder_sample() -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs of `Encoder`, and which of their axes are free."""
    inputs = {name: _ones(_LENGTH) for name in ("input_ids", "attention_mask")}
    batch, length = _dim("batch"), _dim("length")
    return inputs, {name: {0: batch, 1: length} for name in inputs}


def decoder_sample(config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs of `Decoder`, and which of their axes are free."""
    batch, new, length, past = map(_dim, ("batch", "new", "length", "past"))
    inputs: dict[str, Any] = {
        "input_ids": _ones(_NEW),
        "encoder_attention_mask": _ones(_LENGTH),
        "cross": _zeros(config, _LENGTH),
        "past_key_values": _zeros(config, _PAST),
    }
    shapes = {
        "input_ids": {0: batch, 1: new},
        "encoder_attention_mask": {0: batch, 1: length},
        "cross": _free(inputs["cross"], batch, length),
        "past_key_values": _free(inputs["past_key_values"], batch, past),
    }
    return inputs, shapes


def _free(layers: Layers, batch: Any, positions: Any) -> dict[str, Any]:
    return {layer: {kind: {0: batch, 2: positions} for kind in pair} for layer, pair in layers.items()}


def _dim(name: str) -> Any:
    return torch.export.Dim(name, max=1 << 20)


def _ones(length: int) -> Tensor:
    return torch.ones((_BATCH, length), dtype=torch.int64)


def _zeros(config: Any, length: int) -> Layers:
    shape = (_BATCH, config.num_heads, length, config.d_kv)
    return {str(i): {kind: torch.zeros(shape) for kind in ("key", "value")} for i in range(config.num_decoder_layers)}
