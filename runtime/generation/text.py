"""From tokens to text, as they come: no half characters, and nothing of a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress

#: What a decoder writes for bytes that are no character, or not one yet.
_REPLACEMENT = "\ufffd"
#: Tokens that are decoded again with a new one, for what joins them; a character or a space needs a few.
_WINDOW, _KEPT = 24, 8


class Detokenizer:
    """One row's text as its tokens come.

    What all calls return, joined, is what decoding all tokens at once gives, but for bytes at its end that are no
    character: the rest of one may have been cut off.

    Args:
        decode: the text of some tokens, as a tokenizer's ``decode`` gives it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._given = 0  # characters of the window's text

    def add(self, token: int) -> str:
        """The characters that this token completes."""
        self._window.append(token)
        text = self._decode(self._window)
        complete = text.rstrip(_REPLACEMENT)
        new = complete[self._given :]
        self._given = max(self._given, len(complete))
        if complete == text and len(self._window) > _WINDOW:
            self._forget()
        return new

    def _forget(self) -> None:
        kept = self._window[-_KEPT:]
        text = self._decode(kept)
        if text and self._decode(self._window).endswith(text):
            self._window, self._given = kept, len(text)


class StopTexts:
    """Holds text back as long as it may be the beginning of a stop text.

    The stop text that is complete first ends the text, however it is cut into tokens. Special tokens count, as they are
    written, but are not shown.

    Args:
        stop: the texts, none of them empty.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""
        self._shown: list[bool] = []  # which characters of it the answer has

    def add(self, text: str, special: str = "") -> tuple[str, bool]:
        """The text that is final now, and whether a stop text came, before which it ends.

        Args:
            text: what came.
            special: a special token that came after it.
        """
        self._held += text + special
        self._shown += [True] * len(text) + [False] * len(special)
        ends = [(start + len(stop), start) for stop in self._stop if (start := self._held.find(stop)) >= 0]
        if ends:
            _, start = min(ends)
            return self._take(start), True
        return self._take(len(self._held) - self._open()), False

    def finish(self) -> str:
        """What was held back when no text comes any more."""
        return self._take(len(self._held))

    def _take(self, count: int) -> str:
        """The shown ones of the first held characters, which are held no more."""
        text = "".join(compress(self._held[:count], self._shown[:count]))
        self._held, self._shown = self._held[count:], self._shown[count:]
        return text

    def _open(self) -> int:
        """The length of the longest end of the held text that begins a stop text."""
        longest = min(len(self._held), max(map(len, self._stop), default=1) - 1)
        return next((n for n in range(longest, 0, -1) if self._begins(self._held[-n:])), 0)

    def _begins(self, text: str) -> bool:
        return any(stop.startswith(text) for stop in self._stop)
