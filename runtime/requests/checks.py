"""Checks of one request, before ONNX Runtime sees it.

ONNX Runtime itself wraps negative token ids and misreads big-endian arrays, and its errors name an operator deep in the
graph. These errors name the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from eptx._one_line import shown
from eptx.bundle import Manifest, TensorSpec
from eptx.errors import RequestError
from eptx.manifest.names import PAST, ROUTE_GROUP, TASK_ID
from eptx.runtime.outputs import Array
from eptx.runtime.requests.rows import add_state, past_length

_DEFAULTS = {"attention_mask": 1, "token_type_ids": 0}


def check_inputs(inputs: Mapping[str, Any], manifest: Manifest, token_types: int | None = None) -> dict[str, Array]:
    """The arrays to feed, without ``task_id``: contiguous, of the graph's types, consistent with each other.

    A missing ``attention_mask`` is all ones, missing ``token_type_ids`` are zeros, a missing cache is empty, and a
    missing route is left to the model. Integers become the graph's integer type where they fit, floating-point numbers
    its floating-point type.

    Args:
        inputs: arrays by name.
        manifest: the bundle's.
        token_types: how many the model knows; None: unknown.

    Raises:
        RequestError: see the module's text.
    """
    specs = {spec.name: spec for spec in manifest.inputs if spec.name != TASK_ID}
    given = {name: value for name, value in inputs.items() if name != TASK_ID}
    for name in given:
        if name not in specs:
            raise RequestError(f"no input {shown(name)}; the model has {', '.join(specs)}")
    arrays = {name: to_array(specs[name], value) for name, value in given.items()}
    sizes: dict[str, tuple[int, str]] = {}
    for name, array in arrays.items():
        _check_shape(specs[name], array, sizes, manifest.max_length)
    add_state(specs, arrays)
    for name, spec in specs.items():
        if name not in arrays:
            arrays[name] = _default(spec, arrays, sizes)
    for name, array in arrays.items():
        _check_values(name, array, manifest.vocab_size, token_types)
    return arrays


def to_array(spec: TensorSpec, value: Any) -> Array:
    """The value as a contiguous array of the graph's type."""
    name = spec.name
    if isinstance(value, np.ma.MaskedArray):
        raise RequestError(f"input {name} is a masked array; fill it first")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError, RuntimeError):
        raise RequestError(f"input {name} cannot be made an array; are its rows of one length?") from None
    if not array.dtype.isnative:
        raise RequestError(f"input {name} is not in this machine's byte order; convert it to {spec.dtype}")
    wanted = np.dtype(spec.dtype)
    if array.dtype != wanted:
        array = _convert(name, array, wanted)
    if not array.flags.aligned or not array.flags.c_contiguous:
        array = np.array(array, order="C")
    return array


def check_array(spec: TensorSpec, value: Any) -> Array:
    """One input as `check_inputs` checks it, where there is no other."""
    array = to_array(spec, value)
    _check_shape(spec, array, {}, None)
    _check_values(spec.name, array, None, None)
    return array


def _convert(name: str, array: Array, wanted: np.dtype[Any]) -> Array:
    """Converts between integers that fit, between floating-point types, and from booleans for a mask."""
    kinds = array.dtype.kind, wanted.kind
    if kinds[0] in "iu" and kinds[1] in "iu":
        bounds = np.iinfo(wanted)
        if array.size and (int(array.min()) < bounds.min or int(array.max()) > bounds.max):
            raise RequestError(f"input {name} has values that do not fit {wanted}")
        return array.astype(wanted)
    if kinds == ("f", "f") and array.dtype.itemsize <= 8:
        with np.errstate(over="ignore"):  # infinite values are refused later
            return array.astype(wanted)
    if kinds[0] == "b" and kinds[1] in "iu" and name == "attention_mask":
        return array.astype(wanted)
    raise RequestError(f"input {name} is {array.dtype}; the model takes {wanted}")


def _check_shape(spec: TensorSpec, array: Array, sizes: dict[str, tuple[int, str]], longest: int | None) -> None:
    name = spec.name
    if array.ndim != len(spec.shape):
        wanted = ", ".join(map(str, spec.shape))
        raise RequestError(f"input {name} has {array.ndim} dimensions; the model takes [{wanted}]")
    for axis, (dimension, size) in enumerate(zip(spec.shape, array.shape, strict=True)):
        place = dimension if isinstance(dimension, str) else f"dimension {axis}"
        if size == 0 and not (name.startswith(PAST) and axis == 2):
            raise RequestError(f"input {name} is empty: its {place} is 0")
        if isinstance(dimension, int):
            if size != dimension:
                raise RequestError(f"input {name} has {size} in dimension {axis}; the model takes {dimension}")
        elif dimension.isidentifier():
            known, first = sizes.setdefault(dimension, (size, name))
            if known != size:
                raise RequestError(f"input {name} has {dimension} {size}; {first} has {known}")
        if dimension == "length" and longest is not None and size > longest:
            raise RequestError(f"input {name} has {size} tokens a row; the model reads at most {longest}")


def _default(spec: TensorSpec, arrays: Mapping[str, Array], sizes: Mapping[str, tuple[int, str]]) -> Array:
    if spec.name not in _DEFAULTS or not arrays:
        raise RequestError(f"input {spec.name} is missing")
    model = arrays.get("input_ids")
    if model is not None and len(spec.shape) == model.ndim:
        shape = model.shape
        if spec.name == "attention_mask" and model.ndim == 2:
            shape = (shape[0], past_length(arrays) + shape[1])
    elif all(dim in sizes for dim in spec.shape):  # of sound
        shape = tuple(sizes[str(dim)][0] for dim in spec.shape)
    else:
        raise RequestError(f"input {spec.name} is missing")
    return np.full(shape, _DEFAULTS[spec.name], np.dtype(spec.dtype))


def _check_values(name: str, array: Array, vocabulary: int | None, token_types: int | None) -> None:
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise RequestError(f"input {name} holds NaN or infinite values")
    elif name == "input_ids":
        _check_range(name, array, vocabulary, "token ids")
    elif name == "token_type_ids":
        _check_range(name, array, token_types, "token types")
    elif name == ROUTE_GROUP:
        if array.min() < -1:
            raise RequestError(f"input {name} has values under -1, which leaves the route to the model")
    elif name == "attention_mask":
        _check_range(name, array, 2, "mask values")
        empty = ~(array != 0).any(axis=tuple(range(1, array.ndim)))
        if empty.any():
            raise RequestError(f"input {name} hides all of row {int(np.argmax(empty))}")


def _check_range(name: str, array: Array, end: int | None, what: str) -> None:
    """Refuses values outside 0 .. end - 1; the message names the place of the first."""
    low, high = int(array.min()), int(array.max())
    if low >= 0 and (end is None or high < end):
        return
    wrong = (array < 0) | (array >= (high + 1 if end is None else end))  # type: ignore[operator]
    place = [int(i) for i in np.argwhere(wrong)[0]]
    allowed = "not negative" if end is None else f"0 to {end - 1}"
    raise RequestError(f"input {name}{place} is {array[tuple(place)]}; {what} are {allowed}")
