"""The vocabulary that an adapter was trained with, where it is another one than its base's."""

from __future__ import annotations

import re
from typing import Any

from eptx.exporter.trained.files import PREFIX, AdapterFiles

#: What PEFT puts between a module's name and its tensor's.
_BETWEEN = re.compile(r"\.(base_layer|token_adapter|original_module|modules_to_save)(?=\.)")


def resize(model: Any, files: AdapterFiles) -> bool:
    """Gives a model as many tokens as the adapter's files have rows, as its training did; whether that changed it."""
    try:
        table: Any = model.get_input_embeddings()
    except NotImplementedError:  # a model of images has none
        return False
    names = [name for name, module in model.named_modules(remove_duplicate=False) if _shares(module, table)]
    counts = {len(t) for name, t in files.tensors.items() if _plain(name) in {f"{each}.weight" for each in names}}
    if len(counts) != 1 or table is None or counts == {len(table.weight)}:
        return False
    model.resize_token_embeddings(counts.pop(), mean_resizing=False)
    return True


def is_beside(name: str) -> bool:
    """Whether PEFT fills a tensor of this name by itself, into what stands beside an adapter's own."""
    return _BETWEEN.search(name) is not None or name.endswith(".trainable_tokens_delta")


def _plain(name: str) -> str:
    return _BETWEEN.sub("", name.removeprefix(PREFIX))


def _shares(module: Any, table: Any) -> bool:
    own = getattr(module, "weight", None)
    return own is not None and own is getattr(table, "weight", None)
