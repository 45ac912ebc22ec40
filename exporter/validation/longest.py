"""How far a base reads, as transformers says it: the longest row, and the windows of its attention.

Both come from the base alone. What a bundle says of itself never narrows what is tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from eptx.exporter.base._quiet import quiet

#: Names of tables with a row per position, of the text itself.
_TABLES = ("position_embeddings", "embed_positions", "wpe", "position_embedding")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
_WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window", "local_attention", "window_size")
_RELATIVE = "relative_attention_max_distance"
_LOCAL = ("sliding", "chunked", "local")


def longest_row(config: Mapping[str, Any]) -> int | None:
    """The most tokens that a base reads in one row; None where its positions have no end.

    Args:
        config: the base's ``config.json``.
    """
    settings = full_config(config)
    try:
        return longest_of(_skeleton(settings))
    except Exception:  # a class of the user's own, or one that is no AutoModel: its configuration still says it
        return _context(settings)


def longest_of(model: nn.Module) -> int | None:
    """The same of a model that is loaded.

    RoBERTa and its kind number positions from one past the padding id, so that many rows of the table are never used;
    transformers then gives the table that padding id.
    """
    found = [
        int(module.weight.shape[0]) - (0 if getattr(module, "padding_idx", None) is None else module.padding_idx + 1)
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in _TABLES and getattr(getattr(module, "weight", None), "ndim", 0) == 2
    ]
    said = _context(getattr(model, "config", None))
    return min([*found, *([said] if said is not None else [])], default=None)


def windows(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The sizes of the attention windows that some of a base's layers have, each once, smallest first.

    Args:
        config: the base's ``config.json``.
    """
    settings = full_config(config)
    kinds = getattr(settings, "layer_types", None)
    if kinds and not any(str(kind).startswith(_LOCAL) for kind in kinds):
        return ()
    found: set[int] = set()
    for name in _WINDOWS:
        value = getattr(settings, name, None)
        sizes: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
        found |= {size for size in sizes if _positive(size)}
    return tuple(sorted(found))


def farthest_relative(config: Mapping[str, Any]) -> int | None:
    """The distance past which relative positions of T5's kind are all one; None of other models."""
    value = getattr(full_config(config), _RELATIVE, None)
    return value if _positive(value) else None


def full_config(config: Mapping[str, Any]) -> Any:
    """A configuration with the defaults that its file leaves out; of several models in one, that of the text."""
    from transformers import AutoConfig, PretrainedConfig

    values = dict(config)
    with quiet():
        try:
            settings = AutoConfig.for_model(str(values.pop("model_type", "")), **values)
        except Exception:  # a type that transformers does not know, or values that it does not take
            settings = PretrainedConfig(**config)
        return settings.get_text_config()


def _skeleton(settings: Any) -> nn.Module:
    """The model without its weights, which takes no memory."""
    import torch
    from transformers import AutoModel

    with quiet(), torch.device("meta"):
        model: nn.Module = AutoModel.from_config(settings)  # type: ignore[no-untyped-call]
    return model


def _context(settings: Any) -> int | None:
    if _positive(getattr(settings, _RELATIVE, None)):
        return None  # T5 is trained on n_positions tokens, and reads as many as it is given
    return next((value for name in _CONTEXT if _positive(value := getattr(settings, name, None))), None)


def _positive(value: Any) -> bool:
    return type(value) is int and value > 0
