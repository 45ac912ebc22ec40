"""The token that shorter rows of a batch are filled with, where the model looks at it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from eptx._one_line import one_line
from eptx.errors import BaseModelError
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.quiet import quiet

__all__ = ["counted_padding"]

#: With none of these, a folder has no tokenizer; transformers would make one up.
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
#: Where transformers finds generation settings, the one or the other.
_SETTINGS = ("generation_config.json", "config.json")


def counted_padding(graph: BaseGraph, folder: Path) -> BaseGraph:
    """A graph that generates, its rows filled as transformers fills them.

    An attention mask hides padding from all of a model but a router whose mean is over the batch. What the trained
    model sees there is the padding token of its tokenizer; without one, ``generate`` fills with that of the
    generation settings, or with the token that ends an answer.

    Raises:
        BaseModelError: the folder's tokenizer or settings cannot be read.
    """
    generation = graph.generation
    if generation is None:
        return graph
    named = _named(folder)
    return graph if named is None else replace(graph, generation=replace(generation, pad=named))


def _named(folder: Path) -> int | None:
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer: Any = None
    try:
        with quiet():
            if any((folder / name).is_file() for name in _FILES):
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            if getattr(tokenizer, "pad_token_id", None) is not None:
                return int(tokenizer.pad_token_id)
            if not any((folder / name).is_file() for name in _SETTINGS):
                return None
            settings: Any = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception as e:  # whatever the files provoke
        raise BaseModelError(f"{folder.name}: its padding token cannot be read: {one_line(e)}") from None
    ends = settings.eos_token_id
    fill = settings.pad_token_id if settings.pad_token_id is not None else ends
    found = fill[0] if isinstance(fill, list) and fill else fill
    return int(found) if isinstance(found, int) else None
