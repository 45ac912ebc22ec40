"""Tokenizes texts with the base's own tokenizer, as in training, and not with the bundle's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

_NAMES = ("input_ids", "attention_mask", "token_type_ids")

#: A text, or a pair of texts.
Row = str | tuple[str, str]


class BaseTokenizer:
    """transformers' tokenizer of a base.

    Args:
        tokenizer: as `transformers.AutoTokenizer` loads it from the base's folder.
        length: how many tokens the model reads; None: it has no limit. The tokenizer's own may be lower.
        cut: whether longer texts are cut. (Prompts are not: what a prompt asks stands at its end.)
        prompts: whether texts are prompts, of which those that begin with the BOS token are given no special tokens, as
            a chat template's are in transformers.
    """

    def __init__(self, tokenizer: Any, length: int | None, *, cut: bool = True, prompts: bool = False) -> None:
        self._tokenizer = tokenizer
        self._cut, self._prompts = cut, prompts
        limit = getattr(tokenizer, "model_max_length", None)
        # a tokenizer without a limit has 1e30 here
        own = limit if isinstance(limit, int) and limit < 1_000_000 else None
        self._length = min((each for each in (length, own) if each is not None), default=None)

    @property
    def length(self) -> int | None:
        """The most tokens of a row; None without a limit."""
        return self._length if self._cut else None

    def encode(self, rows: Sequence[Row], *, special: bool = True) -> dict[str, list[list[int]]]:
        """The ids, the mask and the type ids of every row, each as long as the row is."""
        encoded = [self._encode(row, special) for row in rows]
        return {name: [list(row[name]) for row in encoded] for name in _NAMES}

    def arrays(self, rows: Sequence[Row], names: Collection[str]) -> dict[str, np.ndarray]:
        """A batch of rows, int64 [rows, longest row]; rows are padded on the tokenizer's side.

        Args:
            rows: texts, or pairs of texts.
            names: the inputs to make, of ``input_ids``, ``attention_mask`` and ``token_type_ids``.
        """
        encoded = self.encode(rows)
        # a model without a padding token ignores padding by the mask alone
        fill = {"input_ids": getattr(self._tokenizer, "pad_token_id", None) or 0}
        left = getattr(self._tokenizer, "padding_side", "right") == "left"
        return {name: _padded(encoded[name], fill.get(name, 0), left) for name in _NAMES if name in names}

    def _encode(self, row: Row, special: bool) -> Any:
        if self._prompts and special and isinstance(row, str):
            bos = self._tokenizer.bos_token_id
            special = bos is None or self._tokenizer(row, verbose=False).input_ids[:2] != [bos, bos]
        return self._tokenizer(
            *([row] if isinstance(row, str) else row),
            add_special_tokens=special,
            truncation="longest_first" if self.length is not None else False,
            max_length=self.length,
            return_attention_mask=True,
            return_token_type_ids=True,
            verbose=False,
        )


def _padded(rows: Sequence[Sequence[int]], fill: int, left: bool) -> np.ndarray:
    length = max(map(len, rows))
    result = np.full((len(rows), length), fill, np.int64)
    for i, row in enumerate(rows):
        start = length - len(row) if left else 0
        result[i, start : start + len(row)] = row
    return result
