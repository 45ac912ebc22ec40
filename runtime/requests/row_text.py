"""The text behind a row of tokens: which token stands where in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eptx.runtime.spans import PADDING, SPECIAL


class EncodedText:
    """A text, or a pair of texts, as the ``tokenizers`` package encoded it.

    Args:
        texts: one or two.
        encoding: the ``Encoding`` of them.
        first: the place of its first token in the row; there is padding before it.
        tokenizer: the ``Tokenizer`` of the package.
    """

    def __init__(self, texts: Sequence[str], encoding: Any, first: int, tokenizer: Any) -> None:
        self._texts, self._encoding, self._first, self._tokenizer = texts, encoding, first, tokenizer

    @property
    def is_pair(self) -> bool:
        """Whether there are two texts."""
        return len(self._texts) == 2

    def parts(self, length: int) -> npt.NDArray[np.int64]:
        """Of which text each of a row's tokens is: 0, 1, `SPECIAL` or `PADDING`."""
        found = np.full(length, PADDING, np.int64)
        own = zip(self._encoding.sequence_ids, self._encoding.special_tokens_mask, strict=True)
        parts = [SPECIAL if special else part or 0 for part, special in own]
        found[self._first : self._first + len(parts)] = parts
        return found

    def word(self, tokens: Sequence[int]) -> str:
        """Some tokens as the tokenizer writes them; a word that it does not know as it stands in the text."""
        own = [self._written(token - self._first) for token in tokens]
        decoder = self._tokenizer.decoder
        return str(decoder.decode(own)) if decoder is not None else " ".join(own)

    def characters(self, first: int, last: int) -> tuple[int, int]:
        """Where two tokens, and what is between, stand in their text."""
        offsets = self._encoding.offsets
        return int(offsets[first - self._first][0]), int(offsets[last - self._first][1])

    def whole_words(self, first: int, last: int) -> tuple[int, int]:
        """The same with the rest of their words."""
        start, end = self.characters(first, last)
        words = [self._word_of(token - self._first) for token in (first, last)]
        return (start, end) if None in words else (words[0][0], words[1][1])  # type: ignore[index]

    def excerpt(self, part: int, start: int, end: int) -> str:
        """Some characters of a text."""
        return self._texts[part][start:end]

    def _word_of(self, token: int) -> tuple[int, int] | None:
        word, part = self._encoding.word_ids[token], self._encoding.sequence_ids[token]
        return None if word is None else self._encoding.word_to_chars(word, part or 0)

    def _written(self, token: int) -> str:
        written, known = self._encoding.tokens[token], self._tokenizer.id_to_token(self._encoding.ids[token])
        # Unigram gives an unknown word its own name, the other models that of their unknown token.
        if written == known != getattr(self._tokenizer.model, "unk_token", None):
            return str(written)
        start, end = self._encoding.offsets[token]
        return self._texts[self._encoding.sequence_ids[token] or 0][start:end]
