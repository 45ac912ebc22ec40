"""Tensors of a class whose first axis is the number of its labels, or of its tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from typing import Any

from eptx.errors import AdapterError
from eptx.exporter.adapters.changes import TensorChange

__all__ = ["sized_by_labels", "sized_by_tokens", "tokens_of"]


def sized_by_labels(model: Any) -> set[str]:
    """The names of the tensors that grow with the number of labels."""
    config = deepcopy(model.config)
    config.num_labels = int(model.config.num_labels) + 1
    try:
        return _grown(model, config)
    except ValueError:  # a class with a fixed number of them (DistilBERT's question answering)
        return set()


def sized_by_tokens(model: Any) -> set[str]:
    """The names of the tensors that grow with the vocabulary."""
    config = deepcopy(model.config)
    text = config.get_text_config()
    if not isinstance(getattr(text, "vocab_size", None), int):
        return set()
    text.vocab_size += 1
    return _grown(model, config)


def _grown(model: Any, config: Any) -> set[str]:
    import torch

    with torch.device("meta"):  # its structure, none of its memory
        more = type(model)(config).state_dict()
    own = model.state_dict()
    return {name for name, value in more.items() if name in own and value.shape[:1] != own[name].shape[:1]}


def tokens_of(task: str, changes: Mapping[str, TensorChange], by_tokens: Collection[str], base: int) -> int:
    """How many tokens a task has.

    Args:
        task: its name.
        changes: what it changes.
        by_tokens: the tensors that the vocabulary sizes.
        base: how many tokens the base has.

    Raises:
        AdapterError: not as many in all of its tensors.
    """
    counts = {name: changes[name].length(base) if name in changes else base for name in sorted(by_tokens)}
    if len(set(counts.values())) > 1:
        most = max(counts, key=lambda name: counts[name])
        less = min(counts, key=lambda name: counts[name])
        raise AdapterError(
            f"task {task!r}: {most} has {counts[most]} tokens and {less} has {counts[less]}: train the adapter again "
            "with both in modules_to_save, and save it"
        )
    return next(iter(counts.values()), base)
