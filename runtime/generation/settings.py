"""How one answer is to be generated."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eptx._one_line import shown
from eptx.errors import RequestError

#: Rows of one batch that every back end takes; GenAI takes no more.
MOST_ROWS = 32
#: Stop texts of one call, and characters of one: every token's text is compared with all of them.
MOST_STOPS, LONGEST_STOP = 64, 256
#: How long an answer may get where the caller does not say.
NEW_TOKENS = 256
_INTEGER_END = 2**31
_LARGEST = sys.float_info.max
_COLD = 1e-5  # below, a logit divided by it may be no number


@dataclass(frozen=True)
class GenerationSettings:
    """The settings of one call, checked.

    Attributes:
        max_new_tokens: how long an answer may get, the token that ends it included.
        temperature: 0 takes the most likely token; else what logits are divided by before one is drawn.
        top_k: draw among that many most likely tokens; None: among all.
        top_p: draw among the fewest most likely tokens whose probabilities (after ``top_k``) reach it; None: among all.
        seed: the same gives the same tokens again; None draws anew in every call.
        stop: texts that end an answer and are no part of it; at most `MOST_STOPS` of `LONGEST_STOP` characters.

    Raises:
        RequestError: one of them is out of range, or of the wrong type.
    """

    max_new_tokens: int = NEW_TOKENS
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()

    @classmethod
    def of(cls, *, stop: str | Sequence[str] = (), **settings: Any) -> GenerationSettings:
        """The settings as a caller gives them: ``stop`` may be one text, or any sequence of them."""
        if isinstance(stop, str):
            stop = (stop,)
        if not isinstance(stop, Sequence) or not all(isinstance(text, str) for text in stop):
            raise RequestError("stop must be a text or a list of texts")
        return cls(stop=tuple(stop), **settings)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken."""
        return self.temperature < _COLD or self.top_k == 1

    def __post_init__(self) -> None:
        _check_integer("max_new_tokens", self.max_new_tokens, 1)
        _check_number("temperature", self.temperature)
        if self.temperature < 0:
            raise RequestError(f"temperature must not be negative, it is {shown(self.temperature)}")
        if self.top_k is not None:
            _check_integer("top_k", self.top_k, 1)
        if self.top_p is not None:
            _check_number("top_p", self.top_p)
            if not 0 < self.top_p <= 1:
                raise RequestError(f"top_p must be above 0 and at most 1, it is {shown(self.top_p)}")
        if self.seed is not None:
            _check_integer("seed", self.seed, 0)
        if not all(self.stop):
            raise RequestError("a stop text is empty")
        if len(self.stop) > MOST_STOPS:
            raise RequestError(f"there are {len(self.stop)} stop texts; at most {MOST_STOPS} are taken")
        if any(len(text) > LONGEST_STOP for text in self.stop):
            raise RequestError(f"a stop text has more than {LONGEST_STOP} characters")


def _check_integer(name: str, value: Any, least: int) -> None:
    if type(value) is not int or not least <= value < _INTEGER_END:
        raise RequestError(f"{name} must be an integer from {least} to {_INTEGER_END - 1}, it is {shown(value)}")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:  # nor NaN
        raise RequestError(f"{name} must be a number, it is {shown(value)}")
