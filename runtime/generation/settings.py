"""How answers are generated."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from eptx._one_line import shown
from eptx.errors import RequestError

#: Rows of one batch that every back end takes; GenAI takes no more.
MOST_ROWS = 32
#: Stop texts of one call, and characters of each: every token's text is compared with all of them.
MOST_STOPS, LONGEST_STOP = 64, 256
#: Likeliest tokens that one token may tell of.
MOST_LOGPROBS = 20
#: How long an answer may get by default.
NEW_TOKENS = 256
_LARGEST_INTEGER = 2**31 - 1
_LARGEST = sys.float_info.max
_COLD = 1e-5  # a logit divided by less may overflow


class SearchOptions(TypedDict, total=False):
    """The keyword arguments of `eptx.Session.generate` and `eptx.Session.stream`.

    Attributes:
        max_new_tokens: how long an answer may get, the token that ends it included; None: 256, or less where the
            model's context ends.
        temperature: 0, the default, takes the most likely token; else what logits are divided by before one is drawn.
        top_k: draw among that many most likely tokens; None: among all.
        top_p: draw among the fewest most likely tokens whose probabilities (after ``top_k``) reach it; None: among all.
        seed: the same seed gives the same batch the same answers again; None draws anew in every call.
        stop: at most 64 texts of at most 256 characters that end an answer and are no part of it. They may hold
            special tokens as the tokenizer writes them (``<|im_end|>``), which the answer's text does not show.
        top_logprobs: have every `Piece` say how likely its token was, and which so many tokens were the likeliest (at
            most 20); None: neither.
        add_special_tokens: whether texts get the special tokens that the tokenizer puts around a text (Llama's
            ``<s>``). None: only texts that do not begin with them, as a chat template's do. Token ids are taken as
            they are.
    """

    max_new_tokens: int | None
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int | None
    stop: str | Sequence[str]
    top_logprobs: int | None
    add_special_tokens: bool | None


class ChatOptions(SearchOptions, total=False):
    """The keyword arguments of `eptx.Session.chat` and `eptx.Session.stream_chat`: those of a prompt, and two more.

    Attributes:
        tools: the functions that the model may call, as JSON schemas, which the template writes into the prompt.
        variables: what else the bundle's chat template reads (``enable_thinking``, ``documents``, ...).
    """

    tools: Sequence[Mapping[str, Any]] | None
    variables: Mapping[str, Any] | None


@dataclass(frozen=True)
class GenerationSettings:
    """The `SearchOptions` of one call, checked, without ``add_special_tokens``.

    Raises:
        RequestError: an option is out of range, or of the wrong type.
    """

    max_new_tokens: int = NEW_TOKENS
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None

    @classmethod
    def of(cls, options: SearchOptions) -> GenerationSettings:
        """The settings as a caller gives them: ``stop`` may be one text, or any sequence of them."""
        given: dict[str, Any] = dict(options)
        given.pop("add_special_tokens", None)
        if given.get("max_new_tokens") is None:
            given.pop("max_new_tokens", None)
        stop = given.pop("stop", ())
        stop = (stop,) if isinstance(stop, str) else stop
        if not isinstance(stop, Sequence) or not all(isinstance(text, str) for text in stop):
            raise RequestError("stop must be a text or a list of texts")
        return cls(stop=tuple(stop), **given)

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
        if self.top_logprobs is not None:
            _check_integer("top_logprobs", self.top_logprobs, 0, MOST_LOGPROBS)
        if not all(self.stop):
            raise RequestError("a stop text is empty")
        if len(self.stop) > MOST_STOPS:
            raise RequestError(f"there are {len(self.stop)} stop texts; at most {MOST_STOPS} are taken")
        if any(len(text) > LONGEST_STOP for text in self.stop):
            raise RequestError(f"a stop text has more than {LONGEST_STOP} characters")


def _check_integer(name: str, value: Any, least: int, most: int = _LARGEST_INTEGER) -> None:
    if type(value) is not int or not least <= value <= most:
        raise RequestError(f"{name} must be an integer from {least} to {most}, it is {shown(value)}")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:  # nor NaN
        raise RequestError(f"{name} must be a number, it is {shown(value)}")
