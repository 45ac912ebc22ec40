"""Tensors on the wire: JSON, and the protocol's binary tensor extension.

Numbers are little-endian. An element of type BYTES is its length in four bytes, then itself.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from eptx._one_line import shown
from eptx.errors import RequestError
from eptx.runtime.outputs import Array

BYTES = "BYTES"
_NUMPY = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
#: What tensors may hold.
DATATYPES = (*_NUMPY, BYTES)
_NAMES = {dtype: name for name, dtype in _NUMPY.items()}
_MOST_DIMENSIONS, _MOST_ELEMENTS = 8, 2**40
_LENGTH = struct.Struct("<I")

#: A tensor's elements: numbers, or the texts of a tensor [batch] of type BYTES.
Value = Array | Sequence[str]


def datatype(dtype: str) -> str:
    """What the protocol calls a numpy type."""
    return _NAMES[dtype]


def read_shape(value: Any, what: str) -> tuple[int, ...]:
    """A tensor's shape, as JSON gives it.

    Raises:
        RequestError: it is not one; the line begins with ``what``, the tensor's name.
    """
    if not isinstance(value, list) or len(value) > _MOST_DIMENSIONS:
        raise RequestError(f"{what}: shape must be a list of at most {_MOST_DIMENSIONS} sizes")
    if not all(type(size) is int and 0 <= size < 2**31 for size in value):
        raise RequestError(f"{what}: shape holds something that is no size: {shown(value)}")
    if 0 in value and math.prod(size for size in value if size) >= _MOST_ELEMENTS:  # which no array can have
        raise RequestError(f"{what}: shape is too large: {shown(value)}")
    return tuple(value)


def from_json(data: Any, kind: str, shape: tuple[int, ...], what: str) -> Array:
    """A tensor of type ``kind`` from a JSON list, which may be nested as the shape says, or flat.

    Raises:
        RequestError: the list does not fit the type or shape.
    """
    flat = _flat(data, shape, what)
    _check_count(len(flat), shape, what)
    types = set(map(type, flat))
    allowed = {str} if kind == BYTES else {bool} if kind == "BOOL" else {int, float} if kind[:2] == "FP" else {int}
    if not types <= allowed:
        wrong = sorted(t.__name__ for t in types - allowed)[0]
        raise RequestError(f"{what}: its data hold a value of type {wrong}, which is not {kind}")
    if kind == BYTES:
        return _objects([text.encode() for text in flat], shape)
    try:
        with np.errstate(over="ignore"):  # infinite values are refused later
            return np.array(flat, _NUMPY[kind]).reshape(shape)
    except OverflowError:
        raise RequestError(f"{what}: its data hold a value that does not fit {kind}") from None


def _flat(data: Any, shape: tuple[int, ...], what: str) -> list[Any]:
    if not isinstance(data, list):
        raise RequestError(f"{what}: data must be a list")
    flat = data
    for size in shape[1:]:
        if not flat or not isinstance(flat[0], list):
            break
        if not all(isinstance(row, list) and len(row) == size for row in flat):
            raise RequestError(f"{what}: its data are not nested as its shape says; rows differ in length")
        flat = list(chain.from_iterable(flat))
    return flat


def from_bytes(data: memoryview, kind: str, shape: tuple[int, ...], what: str) -> Array:
    """A tensor of type ``kind`` from binary data.

    Raises:
        RequestError: the data do not fit the type or shape.
    """
    if kind == BYTES:
        elements = _elements(data, what)
        _check_count(len(elements), shape, what)
        return _objects(elements, shape)
    dtype = np.dtype(_NUMPY[kind]).newbyteorder("<")
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise RequestError(
            f"{what}: {len(data)} bytes of binary data; shape {list(shape)} of {kind} takes "
            f"{math.prod(shape) * dtype.itemsize}"
        )
    if kind == "BOOL" and any(byte > 1 for byte in data):
        raise RequestError(f"{what}: a BOOL is neither 0 nor 1")
    return np.frombuffer(data, dtype).astype(_NUMPY[kind], copy=False).reshape(shape)


def _elements(data: memoryview, what: str) -> list[bytes]:
    elements, start = [], 0
    while start < len(data):
        begin = start + _LENGTH.size
        if begin > len(data):
            raise RequestError(f"{what}: its binary data end within an element's length")
        start = begin + int(_LENGTH.unpack(data[begin - _LENGTH.size : begin])[0])
        if start > len(data):
            raise RequestError(f"{what}: its binary data end within an element")
        elements.append(bytes(data[begin:start]))
    return elements


def _objects(elements: Sequence[bytes], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def _check_count(count: int, shape: tuple[int, ...], what: str) -> None:
    if count != math.prod(shape):
        raise RequestError(f"{what}: {count} elements; shape {list(shape)} takes {math.prod(shape)}")


def describe(value: Value) -> dict[str, Any]:
    """The datatype and shape of an output."""
    if isinstance(value, np.ndarray):
        return {"datatype": datatype(value.dtype.name), "shape": list(value.shape)}
    return {"datatype": BYTES, "shape": [len(value)]}


def to_bytes(value: Value) -> bytes:
    """An output as binary data."""
    if isinstance(value, np.ndarray):
        return value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
    encoded = [text.encode() for text in value]
    return b"".join(chain.from_iterable((_LENGTH.pack(len(text)), text) for text in encoded))


def to_json(value: Value) -> list[Any]:
    """An output as a flat list; null replaces NaN and infinity, which JSON does not have."""
    if not isinstance(value, np.ndarray):
        return list(value)
    flat: list[Any] = value.ravel().tolist()
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        return [number if math.isfinite(number) else None for number in flat]
    return flat
