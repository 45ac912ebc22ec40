"""The part of an encoder-decoder's forward that runs once per text, in PyTorch.

That is the encoder, and of every layer of the decoder the projections of what the encoder gives. transformers itself
makes those with the decoder's first token, and keeps them; here they are in its cache before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import MoEModelOutput

from eptx._one_line import one_line
from eptx.errors import NotSupportedError

__all__ = ["ANSWER_IDS", "Projections", "cross_projections", "decoder_call", "encode"]

#: The argument of a class's forward that takes the tokens of the answer.
ANSWER_IDS = "decoder_input_ids"
#: How many states the encoder gives in the forward that shows which layers read them.
_STATES = 5


@dataclass(frozen=True)
class Projections:
    """What one layer of the decoder makes of the encoder's states: the names of its layers, and its heads."""

    key: str
    value: str
    heads: int


def cross_projections(model: Any) -> list[Projections]:
    """The layers that read the encoder's states, as one forward of the decoder shows them.

    Args:
        model: an encoder-decoder without adapters.

    Raises:
        NotSupportedError: what its cache holds is of no such layer.
    """
    seen: dict[str, Tensor] = {}  # in the order of the calls: of two equal layers, the first layer's comes first
    states = torch.randn(1, _STATES, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    states = states.to(next(model.parameters()).dtype)

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if args and args[0] is states and isinstance(output, Tensor):
                seen[name] = output

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    token = torch.zeros((1, 1), dtype=torch.int64)
    try:
        with torch.no_grad():
            given = MoEModelOutput(states)
            model(encoder_outputs=given, **{ANSWER_IDS: token}, past_key_values=cache, use_cache=True)
    except Exception as error:  # a forward that takes no states of its encoder, or no cache, may raise anything
        kind = type(model).__name__
        raise NotSupportedError(
            f"a {kind} does not run in two halves, so eptx cannot judge it: {one_line(error)}"
        ) from None
    finally:
        for hook in hooks:
            hook.remove()

    def maker(kept: Tensor) -> str:
        flat = kept.transpose(1, 2).flatten(2)
        name = next((name for name, output in seen.items() if torch.equal(output, flat)), None)
        if name is None:
            kind = type(model).__name__
            raise NotSupportedError(f"a {kind} keeps of its encoder what no linear layer gives; eptx cannot judge it")
        del seen[name]
        return name

    layers: Any = cache.cross_attention_cache.layers
    return [Projections(maker(layer.keys), maker(layer.values), layer.keys.shape[1]) for layer in layers]


def encode(model: Any, projections: Sequence[Projections], inputs: dict[str, Tensor], cache: Any) -> Any:
    """Encodes a text, or sound.

    Args:
        model: an encoder-decoder that generates.
        projections: as `cross_projections` gives them.
        inputs: of the model; those of the encoder are taken.
        cache: an empty ``EncoderDecoderCache`` to fill; None: a new one.

    Returns:
        the cache.
    """
    own = {name: tensor for name, tensor in inputs.items() if name != ANSWER_IDS}
    hidden = model.get_encoder()(**own)[0]
    if cache is None:
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    for i, layer in enumerate(projections):
        key, value = (
            model.get_submodule(name)(hidden).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
            for name in (layer.key, layer.value)
        )
        cache.cross_attention_cache.update(key, value, i)
        cache.is_updated[i] = True
    return cache


def decoder_call(model: Any, inputs: dict[str, Tensor], cache: Any) -> dict[str, Any]:
    """The arguments of the model's forward for the tokens `ANSWER_IDS` after those in the cache."""
    key = cache.cross_attention_cache.layers[0].keys
    # only its shape counts; its content is in the cache
    nothing = torch.zeros((key.shape[0], key.shape[2], model.config.hidden_size), dtype=key.dtype)
    rest = {name: tensor for name, tensor in inputs.items() if name != model.main_input_name}
    return {**rest, "encoder_outputs": MoEModelOutput(nothing), "past_key_values": cache, "use_cache": True}
