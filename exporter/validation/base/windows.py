"""How far a base's attention reaches: its windows, its relative positions, its context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eptx.exporter.quiet import quiet

_WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window", "local_attention", "window_size")
_RELATIVE = "relative_attention_max_distance"
_LOCAL = ("sliding", "chunked", "local")


def windows(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The sizes of the attention windows of a base's layers, each once, smallest first.

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
    """The distance from which on T5's relative positions are all the same; None for other models."""
    value = getattr(full_config(config), _RELATIVE, None)
    return value if _positive(value) else None


def context(settings: Any) -> int | None:
    """How many positions a text may have while a token's rotary position does not depend on the text's length.

    ``longrope`` has another table for texts that are longer than the model was first trained on: what is in a cache by
    then was turned by the first one, so no graph with a cache goes past it.

    Args:
        settings: transformers' configuration of the text model.
    """
    positions: Any = getattr(settings, "max_position_embeddings", None) or getattr(settings, "max_seq_len", None)
    if not _positive(positions):
        return None
    rope = getattr(settings, "rope_parameters", None) or {}
    first: Any = rope.get("original_max_position_embeddings") if rope.get("rope_type") == "longrope" else None
    return min(int(positions), int(first)) if _positive(first) else int(positions)


def full_config(config: Mapping[str, Any]) -> Any:
    """A configuration completed by transformers' defaults; of a model with several parts, the text model's."""
    from transformers import AutoConfig, PretrainedConfig

    values = dict(config)
    with quiet():
        try:
            settings = AutoConfig.for_model(str(values.pop("model_type", "")), **values)
        except Exception:  # a type that transformers does not know, or values that it does not take
            settings = PretrainedConfig(**config)
        return settings.get_text_config()


def _positive(value: Any) -> bool:
    return type(value) is int and value > 0
