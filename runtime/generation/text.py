"""From tokens to text as they come: whole characters only, and no stop texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress

#: A tokenizer writes it for bytes that are no whole character.
_REPLACEMENT = "\ufffd"
#: So many tokens are decoded again with a new one: a character or a space may come of several.
_WINDOW, _KEPT = 24, 8


class Detokenizer:
    """One row's text as its tokens come.

    The texts of all calls, joined, equal the text of all tokens at once, but for bytes at the end that are no whole
    character.

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

    The text ends before the stop text that is complete first, however it is cut into tokens. Stop texts may hold
    special tokens, which the answer's text does not show.

    Args:
        stop: the texts, none of them empty.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""
        self._shown: list[bool] = []  # which of its characters the answer shows

    def add(self, text: str, special: str = "") -> tuple[str, bool]:
        """The text that is final now, and whether it ends before a stop text.

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
        """The rest of the text, when no more tokens come."""
        return self._take(len(self._held))

    def _take(self, count: int) -> str:
        """Releases the first held characters; returns those that are shown."""
        text = "".join(compress(self._held[:count], self._shown[:count]))
        self._held, self._shown = self._held[count:], self._shown[count:]
        return text

    def _open(self) -> int:
        """How many of the last held characters may begin a stop text."""
        longest = min(len(self._held), max(map(len, self._stop), default=1) - 1)
        return next((n for n in range(longest, 0, -1) if self._begins(self._held[-n:])), 0)

    def _begins(self, text: str) -> bool:
        return any(stop.startswith(text) for stop in self._stop)
