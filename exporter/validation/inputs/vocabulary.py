"""Which tokens a base reads, and how many at once: from the base, not from the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from eptx.exporter.validation.base.lookups import Lookups
from eptx.exporter.validation.base.windows import full_config

#: The longest row of a base whose positions have no end.
UNLIMITED = 1 << 20
#: The longest row that is tried: the reference takes seconds to minutes for it.
LONGEST_ROW = 2048
#: The longest row whose modules are compared, and not the outputs alone: all of them are in memory together.
LONGEST_INSIDE = 512


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that a base reads.

    Attributes:
        size: number of token ids.
        of_tasks: the same of each task that has fewer.
        types: number of token types.
        longest: largest number of tokens in a row.
        pad: the padding id.
        first, last: ids that open and close a row, None where unknown.
        places: how many places across a page, and down, the base tells apart.
    """

    size: int
    types: int
    longest: int
    pad: int
    first: int | None
    last: int | None
    places: int = 1000
    of_tasks: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any], found: Lookups) -> Vocabulary:
        """From the base's ``config.json`` and the sizes of the trained model's tables."""
        settings = full_config(config)
        size = found.words or _number(settings, "vocab_size") or 2

        def special(*keys: str) -> int | None:
            found = next((value for key in keys if type(value := getattr(settings, key, None)) is int), None)
            return found if found is not None and 0 <= found < size else None

        return cls(
            size=size,
            types=_number(settings, "type_vocab_size") or 1,
            longest=found.longest or UNLIMITED,
            pad=special("pad_token_id") or 0,
            first=special("cls_token_id", "bos_token_id"),
            last=special("sep_token_id", "eos_token_id"),
            places=_number(settings, "max_2d_position_embeddings") or 1000,
            of_tasks=found.of_tasks,
        )

    def shared(self, tasks: Sequence[str]) -> Vocabulary:
        """The tokens that all of some tasks have."""
        return replace(self, size=min(self.of_tasks.get(task, self.size) for task in tasks))

    def draw(self, rng: np.random.Generator, shape: int | tuple[int, ...]) -> np.ndarray:
        """Random tokens int64 [*shape] other than the padding, by which RoBERTa numbers positions."""
        ids = rng.integers(0, max(self.size - 1, 1), shape)
        return np.asarray(np.minimum(ids + (ids >= self.pad), self.size - 1))


def _number(settings: Any, key: str) -> int | None:
    value = getattr(settings, key, None)
    return value if type(value) is int and value > 0 else None
