"""Checks the prompts of a request, and turns texts into token ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from eptx.bundle import Component, Manifest
from eptx.errors import RequestError, TooLongError
from eptx.manifest.names import TASK_ID
from eptx.runtime.generation.request import Prompt
from eptx.runtime.generation.settings import NEW_TOKENS
from eptx.runtime.outputs import Array
from eptx.runtime.requests.checks import check_array

#: One text, a text for each row, or a row of token ids for each; or what an encoder reads instead, by name.
Prompts = str | Sequence[str] | Sequence[Sequence[int]] | Mapping[str, Any]
#: From texts to their token ids.
Encode = Callable[[Sequence[str]], list[list[int]]]


def token_rows(prompts: Any, encode: Encode, manifest: Manifest) -> list[list[int]]:
    """Each prompt's token ids.

    Raises:
        RequestError: there is no prompt, one is empty, is neither text nor token ids, or is too long.
    """
    rows = _rows(prompts, encode)
    for i, row in enumerate(rows):
        if not row:
            raise RequestError(f"prompt {i} has no tokens")
        _check_ids(i, row, manifest.vocab_size)
        if manifest.max_length is not None and len(row) > manifest.max_length:
            raise TooLongError(f"prompt {i} has {len(row)} tokens; the model reads at most {manifest.max_length}")
    return rows


def feature_rows(prompts: Any, encoder: Component) -> list[Array]:
    """Each row's array, for an encoder that reads no tokens.

    Raises:
        RequestError: it is not what the encoder reads.
    """
    specs = {spec.name: spec for spec in encoder.inputs if spec.name != TASK_ID}
    (name,) = specs
    shape = ", ".join(map(str, specs[name].shape))
    if not isinstance(prompts, Mapping) or set(prompts) != {name}:
        raise RequestError(
            f'this bundle reads no text; give {{"{name}": array}} of [{shape}], of its feature extractor'
        )
    return list(check_array(specs[name], prompts[name]))


def check_ends(rows: Sequence[Sequence[int]], pad: int) -> None:
    """Refuses prompts that end in the padding token: GenAI would take it for padding.

    Raises:
        RequestError: a prompt ends in the padding token.
    """
    for i, row in enumerate(rows):
        if row[-1] == pad:
            raise RequestError(f"prompt {i} ends in token {pad}, which this bundle pads with; leave it out")


def max_answer(rows: Sequence[Prompt], manifest: Manifest, wanted: int | None) -> int:
    """How many tokens an answer may have: a decoder reads prompt and answer in one context.

    Args:
        rows: as `token_rows` gives them.
        manifest: the bundle's.
        wanted: how many the caller wants; None: `NEW_TOKENS`, or fewer if the longest prompt leaves less room.

    Raises:
        TooLongError: they do not fit into the context.
    """
    generation = manifest.generation
    if generation is not None and generation.longest is not None:
        forced = generation.rules.forced if generation.rules is not None else ()
        left = generation.longest - len(forced)  # of the last token nothing follows, so it takes no place
        if left < (wanted or 1):
            raise TooLongError(f"an answer has at most {left} tokens; max_new_tokens is {wanted or 1}")
        return wanted or min(NEW_TOKENS, left)
    if manifest.max_length is None or manifest.encoder is not None:
        return wanted or NEW_TOKENS
    longest = max(range(len(rows)), key=lambda row: len(rows[row]))
    left = manifest.max_length - len(rows[longest])
    if left < (wanted or 1):
        raise TooLongError(
            f"prompt {longest} has {len(rows[longest])} tokens and {wanted or 1} more do not fit: "
            f"the model reads at most {manifest.max_length}"
        )
    return wanted or min(NEW_TOKENS, left)


def _rows(prompts: Any, encode: Encode) -> list[list[int]]:
    if isinstance(prompts, str):
        return encode([prompts])
    single = isinstance(prompts, bytes) or (isinstance(prompts, np.ndarray) and not prompts.ndim)
    if single or not isinstance(prompts, Sequence | np.ndarray):
        raise RequestError(f"prompts must be texts or rows of token ids, not {type(prompts).__name__}")
    if not len(prompts):
        raise RequestError("there are no prompts")
    if all(isinstance(prompt, str) for prompt in prompts):
        return encode(list(prompts))
    return [_ids(i, prompt) for i, prompt in enumerate(prompts)]


def _ids(row: int, prompt: Any) -> list[int]:
    wrong = RequestError(f"prompt {row} is neither a text nor a row of token ids, as all prompts must be alike")
    if isinstance(prompt, str | bytes) or not isinstance(prompt, Sequence | np.ndarray):
        raise wrong
    try:
        ids = np.asarray(prompt)
    except (ValueError, TypeError, OverflowError):
        raise wrong from None
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise wrong
    return [int(i) for i in ids]


def _check_ids(row: int, ids: Sequence[int], vocabulary: int | None) -> None:
    for position, token in enumerate(ids):
        if token < 0 or (vocabulary is not None and token >= vocabulary):
            allowed = "not negative" if vocabulary is None else f"0 to {vocabulary - 1}"
            raise RequestError(f"prompt {row} has token {token} at {position}; token ids are {allowed}")
