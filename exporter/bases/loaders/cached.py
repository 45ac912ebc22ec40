"""A decoder of transformers as a module to trace: new tokens, after those in a cache, to logits and the longer cache.

Modules keep their names: the model itself gets another ``forward``.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from eptx._one_line import one_line
from eptx.errors import NotSupportedError

__all__ = ["allow_cache", "cached_sample"]

#: layer -> "key" and "value", each [batch, heads, positions, head size].
Layers = dict[str, dict[str, Tensor]]

_BATCH, _NEW, _PAST = 2, 3, 5  # none is 0, 1, the same as another; nor is their sum


def allow_cache(model: Any, *, by_slot: bool) -> None:
    """Changes a model in place: its ``forward`` takes and gives a cache as tensors.

    ``input_ids`` [batch, n], ``attention_mask`` [batch, past + n] and ``past_key_values`` to ``logits`` [batch, n,
    vocabulary] and ``present``. A token's position is the number of tokens before it that the mask shows, so a row may
    have padding between its prompt and what follows.

    Args:
        model: of transformers, in evaluation mode.
        by_slot: whether the model counts places of the cache instead of tokens: how far a window reaches, or how far
            ALiBi's scores fall. Then every row's tokens are moved together first, and back afterwards.
    """
    counted = "position_ids" in inspect.signature(model.forward).parameters

    class Cached(type(model)):  # type: ignore[misc]
        def forward(self, input_ids: Tensor, attention_mask: Tensor, past_key_values: Layers) -> dict[str, Any]:
            held = past_key_values["0"]["key"].shape[2]
            gap = held - attention_mask[:, :held].sum(dim=1, keepdim=True) if by_slot else None
            mask = attention_mask if gap is None else _moved(attention_mask, held, gap)
            cache: Any = DynamicCache()
            for i in range(len(past_key_values)):
                key, value = (past_key_values[str(i)][kind] for kind in ("key", "value"))
                if gap is not None:
                    key, value = _rolled(key, gap), _rolled(value, gap)
                cache.update(key, value, i)
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, held:]
            given = {"position_ids": positions} if counted else {}
            out = super().forward(
                input_ids=input_ids, attention_mask=mask, past_key_values=cache, use_cache=True, **given
            )
            pairs = ((x.keys, x.values) for x in cache.layers)
            if gap is not None:
                pairs = ((_rolled(key, -gap), _rolled(value, -gap)) for key, value in pairs)
            present = {str(i): {"key": key, "value": value} for i, (key, value) in enumerate(pairs)}
            return {"logits": out.logits, "present": present}

    Cached.__name__ = type(model).__name__  # for messages
    model.__class__ = Cached


def _moved(mask: Tensor, held: int, gap: Tensor) -> Tensor:
    """The mask of rows whose tokens in the cache were moved to its end."""
    places = torch.arange(held)[None]
    return torch.cat([(places >= gap).to(mask.dtype), mask[:, held:]], dim=1)


def _rolled(cache: Tensor, by: Tensor) -> Tensor:
    """Each row's positions moved on, [batch, heads, positions, size], by [batch, 1]; those at the end come first."""
    length = cache.shape[2]
    index = torch.arange(length)[None] - by
    index = torch.where(index < 0, index + length, torch.where(index < length, index, index - length))
    return torch.gather(cache, 2, index[:, None, :, None].expand(-1, cache.shape[1], -1, cache.shape[3]))


def cached_sample(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs of a model with `allow_cache`, and which of their axes are free.

    Args:
        model: before that.

    Raises:
        NotSupportedError: it keeps something else than keys and values of every token.
    """
    batch, free = torch.export.Dim("batch", max=1 << 20), torch.export.Dim.DYNAMIC
    caches = _empty(model)
    inputs: dict[str, Any] = {
        "input_ids": torch.ones((_BATCH, _NEW), dtype=torch.int64),
        "attention_mask": torch.ones((_BATCH, _PAST + _NEW), dtype=torch.int64),
        "past_key_values": caches,
    }
    shapes = {
        "input_ids": {0: batch, 1: free},
        "attention_mask": {0: batch, 1: free},
        "past_key_values": {layer: {kind: {0: batch, 2: free} for kind in pair} for layer, pair in caches.items()},
    }
    return inputs, shapes


def _empty(model: Any) -> Layers:
    """A cache of zeros, as wide as what the model puts into one."""
    cache: Any = DynamicCache()
    try:
        with torch.no_grad():
            model(input_ids=torch.ones((1, _NEW), dtype=torch.int64), past_key_values=cache, use_cache=True)
        shapes = [[kept.shape for kept in (layer.keys, layer.values)] for layer in cache.layers]
    except Exception as e:  # models without such a cache fail with any class
        raise _other_state(model, one_line(e)) from None
    if not shapes or any(len(shape) != 4 or shape[2] != _NEW for pair in shapes for shape in pair):
        raise _other_state(model, "its cache is of another shape")

    def zeros(shape: Any) -> Tensor:
        return torch.zeros((_BATCH, shape[1], _PAST, shape[3]))

    return {str(i): {"key": zeros(key), "value": zeros(value)} for i, (key, value) in enumerate(shapes)}


def _other_state(model: Any, why: str) -> NotSupportedError:
    kind = model.config.architectures[0] if model.config.architectures else type(model).__name__
    return NotSupportedError(
        f"{kind} does not keep keys and values of every token ({why}), so no graph with a cache can be made of it"
    )
