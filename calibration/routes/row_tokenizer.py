"""Tokenizes single rows for a base model in PyTorch, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eptx.errors import BaseModelError, DataError, NotSupportedError
from eptx.exporter.bundle.text import load_tokenizer
from eptx.runtime.measure import Row

_TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model")


class RowTokenizer:
    """The base folder's own tokenizer, for rows.

    Args:
        base: the transformers folder.
        vocabulary: how many token ids the base has.
        max_length: the most tokens that it reads, where there is such a limit.
    """

    def __init__(self, base: Path, vocabulary: int, max_length: int | None) -> None:
        self._base = base
        self._vocabulary = vocabulary
        self._max_length = max_length
        self._tokenizer: Any = None

    def inputs(self, row: Row) -> dict[str, np.ndarray]:
        """Arrays int64 [1, length] by input name.

        Raises:
            DataError: the row has token ids that the base does not read.
            NotSupportedError: the row is text, and the base folder has no tokenizer.
        """
        if row.input_ids is not None:
            ids = np.array([self._checked(row.input_ids, row)], dtype=np.int64)
            return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        tokenizer = self._load()
        limits = [limit for limit in (self._max_length, tokenizer.model_max_length) if limit is not None]
        encoded = tokenizer(row.text, row.text_pair, truncation=True, max_length=min(limits), return_tensors="np")
        return {name: np.asarray(array, dtype=np.int64) for name, array in encoded.items()}

    def answer(self, row: Row) -> tuple[int, ...]:
        """The token ids of the text that a row's label asks to generate; none for other labels.

        Raises:
            DataError, NotSupportedError: as `inputs`.
        """
        if isinstance(row.label, tuple):
            return tuple(self._checked([int(token) for token in row.label], row))
        if not isinstance(row.label, str):
            return ()
        return tuple(self._load()(row.label, add_special_tokens=False)["input_ids"])

    def _checked(self, ids: Sequence[int], row: Row) -> Sequence[int]:
        if max(ids) >= self._vocabulary:
            raise DataError(
                f"{row.where}: holds token id {max(ids)}; the base has token ids 0 to {self._vocabulary - 1}"
            )
        if self._max_length is not None and len(ids) > self._max_length:
            raise DataError(f"{row.where}: is {len(ids)} tokens; the base reads at most {self._max_length}")
        return ids

    def _load(self) -> Any:
        if self._tokenizer is None:
            # without these files transformers makes a tokenizer without words, to which every text is unknown
            if not any(any(self._base.glob(pattern)) for pattern in _TOKENIZER_FILES):
                raise NotSupportedError(f"{self._base}: has no tokenizer; give rows with input_ids")
            try:
                self._tokenizer = load_tokenizer(self._base)
            except BaseModelError as error:
                raise NotSupportedError(f"{error}; give rows with input_ids") from None
        return self._tokenizer
