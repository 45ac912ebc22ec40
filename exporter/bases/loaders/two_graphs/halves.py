"""The two halves of an encoder-decoder as modules to trace: what runs once per text, and what runs once per token.

Both call the model's own forward, and find what they need in the ``EncoderDecoderCache`` that it fills, so no
architecture is named here. Their children are the model's, so the modules in the graphs have the model's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import MoEModelOutput

from eptx.errors import NotSupportedError
from eptx.exporter.bases.loaders.tracing.sample import Sample, samples

__all__ = ["Decoder", "Encoder", "Layers", "decoder_sample", "encoder_sample"]

#: layer -> "key" and "value", each [batch, heads, positions, head size].
Layers = dict[str, dict[str, Tensor]]

_NEW, _PAST = 3, 5  # neither is 0, 1, another size of a sample, or the sum of two
_FREE = 1 << 20
_MASK = "attention_mask"


class _Half(nn.Module):
    """Has the children and tensors of a model, under their names there.

    Attributes:
        half_of: the model.
    """

    half_of: Any

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config
        own = ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set")
        vars(self).update({name: vars(model)[name] for name in own})
        vars(self)["half_of"] = model  # past nn.Module, to which it would be a child

    def _answer(self, cache: Any, hidden: Tensor, mask: Tensor | None, tokens: Tensor) -> Any:
        """The model's own forward of some tokens of the answer, with what the encoder gave.

        That is given in the widest of transformers' classes: mixtures of experts look at its ``router_logits``.
        """
        model = self.half_of
        given = {} if mask is None else {_MASK: mask}
        tokens_of = {"decoder_input_ids": tokens, "past_key_values": cache, "use_cache": True}
        return type(model).forward(model, encoder_outputs=MoEModelOutput(hidden), **given, **tokens_of)


class Encoder(_Half):
    """Text, or sound, to what every layer of the decoder attends to in it: the decoder then never projects it again."""

    def forward(self, **inputs: Tensor) -> dict[str, Layers]:
        """The encoder's inputs to the output ``cross``.

        The decoder projects the encoder's states with the first token of an answer. That forward is made here, and
        all of it that the projections do not need is no part of the graph.
        """
        hidden = self.half_of.get_encoder()(**inputs)[0]
        cache: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())
        first = torch.zeros((hidden.shape[0], 1), dtype=torch.int64)
        self._answer(cache, hidden, inputs.get(_MASK), first)
        return {"cross": _layers(cache.cross_attention_cache)}


class Decoder(_Half):
    """New tokens, after those in the cache, to their logits and the longer cache."""

    def forward(
        self, input_ids: Tensor, cross: Layers, past_key_values: Layers, encoder_attention_mask: Tensor | None = None
    ) -> dict[str, Any]:
        """[batch, n] new tokens to ``logits`` [batch, n, vocabulary] and ``present``."""
        cache: Any = EncoderDecoderCache(_cache(past_key_values), _cache(cross))
        key = cross["0"]["key"]
        # says that there is an encoder, and how many states it gave; what it gave is in the cache
        nothing = torch.zeros(()).expand(key.shape[0], key.shape[2], self.config.hidden_size)
        output = self._answer(cache, nothing, encoder_attention_mask, input_ids)
        return {"logits": output.logits, "present": _layers(cache.self_attention_cache)}


def encoder_sample(model: Any, folder: Path) -> Sample:
    """Inputs of `Encoder`.

    Args:
        model: the whole model.
        folder: of the base.

    Raises:
        NotSupportedError: the model reads something else than text or the features of sound.
    """
    sample, name = next(samples(model, folder)), model.main_input_name
    fixed = set(sample.inputs) == {name} and set(sample.axes[name]) == {0}
    if name == "input_ids" or fixed:
        return sample
    kind, read = type(model).__name__, " and ".join(sample.inputs)
    raise NotSupportedError(
        f"a {kind} reads {read} of any length; of encoder-decoders, eptx exports those that read input_ids, or the "
        "features of sound of a fixed length, as Whisper does: docs/supported.md lists them"
    )


def decoder_sample(model: Any, sample: Sample, cross: Layers) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs of `Decoder`, and which of their axes are free.

    Args:
        model: the whole model.
        sample: of its encoder.
        cross: what the encoder gave for it.

    Raises:
        NotSupportedError: the decoder keeps nothing of the encoder in its cache.
    """
    batch_size = len(next(iter(sample.inputs.values())))
    key = next(iter(cross.values()))["key"] if cross else None
    if key is None or key.ndim != 4 or key.shape[0] != batch_size:
        kind = type(model).__name__
        raise NotSupportedError(
            f"a {kind} does not keep the encoder's keys and values in transformers' EncoderDecoderCache, "
            "so its decoder cannot run alone; eptx does not export it"
        )
    half = max(_longest(model.config, "max_target_positions", "max_position_embeddings") // 2, _PAST)
    batch, new, past = _dim("batch"), _dim("new", half), _dim("past", half)
    mask = sample.inputs.get(_MASK)
    length = None if mask is None else _dim("length", _longest(model.config, "max_position_embeddings"))
    cache = {
        layer: {
            kind: torch.zeros((batch_size, tensor.shape[1], _PAST, tensor.shape[3])) for kind, tensor in pair.items()
        }
        for layer, pair in cross.items()
    }
    inputs: dict[str, Any] = {
        "input_ids": torch.ones((batch_size, _NEW), dtype=torch.int64),
        "cross": {
            layer: {kind: torch.zeros_like(tensor) for kind, tensor in pair.items()} for layer, pair in cross.items()
        },
        "past_key_values": cache,
    }
    shapes: dict[str, Any] = {
        "input_ids": {0: batch, 1: new},
        "cross": _free(cross, batch, length),
        "past_key_values": _free(cache, batch, past),
    }
    if mask is not None:
        inputs["encoder_attention_mask"] = mask
        shapes["encoder_attention_mask"] = {0: batch, 1: length}
    return inputs, shapes


def _layers(cache: Any) -> Layers:
    return {str(i): {"key": layer.keys, "value": layer.values} for i, layer in enumerate(cache.layers)}


def _cache(layers: Layers) -> Any:
    cache: Any = DynamicCache()
    for i in range(len(layers)):
        cache.update(layers[str(i)]["key"], layers[str(i)]["value"], i)
    return cache


def _free(layers: Mapping[str, Mapping[str, Tensor]], batch: Any, positions: Any | None) -> dict[str, Any]:
    axes = {0: batch} if positions is None else {0: batch, 2: positions}
    return {layer: {kind: dict(axes) for kind in pair} for layer, pair in layers.items()}


def _longest(config: Any, *names: str) -> int:
    """How many positions a side has; many, where its configuration names none."""
    return next((int(value) for name in names if (value := getattr(config, name, None))), _FREE)


def _dim(name: str, most: int = _FREE) -> Any:
    return torch.export.Dim(name, max=most)
