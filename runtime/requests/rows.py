"""What a decoder's graph reads beside the tokens: the cache, routes, and rows that are padded on the right.

The graph takes a row's length from the sum of its mask, and its tokens from the left. A request may place its rows
elsewhere in its arrays: they are moved to the left, and their outputs are moved back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from eptx.bundle import Manifest, TensorSpec
from eptx.errors import RequestError
from eptx.manifest.names import PAST, ROUTE_GROUP, ROUTE_WEIGHTS
from eptx.runtime.outputs import Array

_IDS, _MASK = "input_ids", "attention_mask"


def pad_rows(
    rows: Sequence[Sequence[int] | Array], pad: int, dtype: npt.DTypeLike = np.int64, *, left: bool = False
) -> Array:
    """Rows of different lengths as an array [rows, longest], filled with ``pad`` on the right, or on the left."""
    length = max(map(len, rows))
    padded = np.full((len(rows), length), pad, dtype)
    for place, row in zip(padded, rows, strict=True):
        start = length - len(row) if left else 0
        place[start : start + len(row)] = row
    return padded


def rows_in(arrays: Mapping[str, Array]) -> int:
    """How many rows a request has."""
    return len(next(iter(arrays.values())))


def past_length(arrays: Mapping[str, Array]) -> int:
    """How many positions the cache of a request holds."""
    return next((array.shape[2] for name, array in arrays.items() if name.startswith(PAST)), 0)


def add_state(specs: Mapping[str, TensorSpec], arrays: dict[str, Array]) -> None:
    """Adds inputs that a request may leave out: an empty cache, and routes for the model to choose.

    Raises:
        RequestError: a part of the cache or of the route is missing.
    """
    for group in ((PAST,), (ROUTE_GROUP, ROUTE_WEIGHTS)):
        wanted = [spec for spec in specs.values() if spec.name.startswith(group)]
        missing = [spec for spec in wanted if spec.name not in arrays]
        if _IDS in arrays and missing and len(missing) == len(wanted):
            arrays.update({spec.name: _initial(spec, len(arrays[_IDS])) for spec in wanted})
        elif missing and len(missing) < len(wanted):
            raise RequestError(f"input {missing[0].name} is missing; give all of {', '.join(g + '*' for g in group)}")


def _initial(spec: TensorSpec, batch: int) -> Array:
    sizes = [size if isinstance(size, int) else 0 for size in spec.shape[1:]]
    return np.full((batch, *sizes), -1 if spec.name == ROUTE_GROUP else 0, np.dtype(spec.dtype))


def check_rows(arrays: Mapping[str, Array], limit: int | None) -> None:
    """Checks a decoder's mask.

    Args:
        arrays: a decoder's inputs by name.
        limit: the largest number of tokens in a row, with those of the cache.

    Raises:
        RequestError: the mask is not as long as cache and tokens, has a hole, or there are too many tokens.
    """
    past, (_, length) = past_length(arrays), arrays[_IDS].shape
    mask = arrays[_MASK] != 0
    if mask.shape[1] != past + length:
        raise RequestError(f"input {_MASK} has length {mask.shape[1]}; cache and {_IDS} have {past} + {length}")
    if limit is not None and past + length > limit:
        raise RequestError(f"cache and {_IDS} have {past + length} tokens a row; the model reads at most {limit}")
    if past and not mask[:, past:].all():
        raise RequestError(f"input {_MASK} hides tokens that follow a cache; they cannot be padded")
    if not past and (np.diff(mask.astype(np.int8), axis=1, prepend=0) == 1).sum(axis=1).max() > 1:
        raise RequestError(f"input {_MASK} has a hole; a row's tokens must stand together")


class Rows:
    """Where the rows of a batch stand, in the request and in the graph.

    Args:
        arrays: a decoder's checked inputs; ``input_ids`` and ``attention_mask`` are replaced by what the graph reads.
    """

    def __init__(self, arrays: dict[str, Array]) -> None:
        length = arrays[_IDS].shape[1]
        self._mask = arrays[_MASK][:, past_length(arrays) :] != 0
        starts = np.argmax(self._mask, axis=1)[:, None]
        places = np.arange(length)[None]
        self._back = (places - starts) % length
        if starts.any():
            there = (places + starts) % length
            for name in (_IDS, _MASK):
                arrays[name] = np.take_along_axis(arrays[name], there, 1)

    def restore(self, outputs: dict[str, Array], manifest: Manifest) -> None:
        """Moves each position's outputs to its token's place in the request; hidden positions give zeros."""
        if self._mask.all():
            return
        for spec in manifest.outputs:
            if spec.shape[1:2] == ("length",):
                outputs[spec.name] = self._restored(outputs[spec.name])

    def _restored(self, value: Array) -> Array:
        shape = (*self._mask.shape, *(1,) * (value.ndim - 2))
        moved = np.take_along_axis(value, self._back.reshape(shape), 1)
        moved[~self._mask] = 0
        return moved
