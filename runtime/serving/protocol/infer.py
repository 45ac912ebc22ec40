"""The Open Inference Protocol v2 on the wire: JSON tensors, and the binary tensor extension.

A request's body is a JSON object; with the extension, the JSON's length is in a header, and the bytes of those tensors
that say ``binary_data_size`` follow it, one after the other. Numbers are little-endian; an element of type BYTES is its
length in four bytes, then itself.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from eptx._one_line import shown
from eptx.errors import RequestError
from eptx.files.strict_json import parse_json
from eptx.runtime.outputs import Array
from eptx.runtime.serving.protocol.parameters import read_flag

#: Says how many bytes of a body are JSON, where others follow.
HEADER_LENGTH = "Inference-Header-Content-Length"

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
_UNSUPPORTED = ("sequence_id", "shared_memory_region", "classification")

#: A tensor's elements: numbers, or the texts of a tensor [batch] of type BYTES.
Value = Array | Sequence[str]


@dataclass(frozen=True)
class InferRequest:
    """One request, as it was sent.

    Attributes:
        inputs: tensors by name; of type BYTES as arrays of objects, which are ``bytes``.
        parameters: the request's own.
        id: what the client calls it, or None.
        outputs: the outputs that it wants, and whether as binary data (None: as the request says for all); None: it
            does not say which.
        binary: whether outputs are binary where they do not say.
    """

    inputs: Mapping[str, Array]
    parameters: Mapping[str, Any]
    id: str | None = None
    outputs: Mapping[str, bool | None] | None = None
    binary: bool = False

    def is_binary(self, output: str) -> bool:
        """Whether an output is to be sent as binary data."""
        wanted = None if self.outputs is None else self.outputs.get(output)
        return self.binary if wanted is None else wanted


def datatype(dtype: str) -> str:
    """What the protocol calls a numpy type."""
    return _NAMES[dtype]


def parse_request(body: bytes, header_length: str | None = None) -> InferRequest:
    """Reads an inference request.

    Args:
        body: all bytes of it.
        header_length: the header `HEADER_LENGTH`, if it was sent.

    Raises:
        RequestError: the body is not a request; the line names the place.
    """
    head, tail = _split(body, header_length)
    request = _object(parse_json(head, what="the request", error=RequestError), "the request")
    parameters = _parameters(request, "the request")
    return InferRequest(
        inputs=_inputs(request, tail),
        parameters=parameters,
        id=_text(request.get("id"), "id"),
        outputs=_outputs(request),
        binary=read_flag(parameters, "binary_data_output", "the request") or False,
    )


def encode_response(
    head: Mapping[str, Any], outputs: Mapping[str, Value], request: InferRequest
) -> tuple[bytes, int | None]:
    """The body of an answer.

    Args:
        head: what stands beside the outputs.
        outputs: in the order to send them.
        request: that is answered.

    Returns:
        The bytes, and the length of their JSON where binary data follow it.
    """
    described, blobs = [], []
    for name, value in outputs.items():
        entry: dict[str, Any] = {"name": name, **_description(value)}
        if request.is_binary(name):
            blobs.append(_blob(value))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = _listed(value)
        described.append(entry)
    text = json.dumps({**head, "outputs": described}, separators=(",", ":"), allow_nan=False).encode()
    return b"".join((text, *blobs)), len(text) if blobs else None


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    size = int(header_length) if header_length.isdecimal() and len(header_length) < 20 else -1
    if not 0 <= size <= len(body):
        raise RequestError(f"{HEADER_LENGTH} must be a number of bytes of the body, which has {len(body)}")
    return body[:size], memoryview(body)[size:]


def _inputs(request: Mapping[str, Any], tail: memoryview) -> dict[str, Array]:
    listed = request.get("inputs")
    if not isinstance(listed, list) or not listed:
        raise RequestError("the request has no inputs; give a list of tensors")
    inputs: dict[str, Array] = {}
    for i, entry in enumerate(listed):
        tensor = _object(entry, f"inputs[{i}]")
        name = _named(tensor, f"inputs[{i}]")
        if name in inputs:
            raise RequestError(f"input {shown(name)} is given twice")
        inputs[name], tail = _tensor(tensor, f"input {shown(name)}", tail)
    if tail:
        raise RequestError(f"{len(tail)} bytes follow the last input's binary data")
    return inputs


def _tensor(tensor: Mapping[str, Any], what: str, tail: memoryview) -> tuple[Array, memoryview]:
    kind = tensor.get("datatype")
    if not isinstance(kind, str) or kind not in DATATYPES:
        raise RequestError(f"{what}: datatype must be one of {', '.join(DATATYPES)}, it is {shown(kind)}")
    shape = _shape(tensor.get("shape"), what)
    size = _parameters(tensor, what).get("binary_data_size")
    if (size is None) == ("data" not in tensor):
        raise RequestError(f"{what}: give either data or the parameter binary_data_size")
    if size is None:
        return _from_json(tensor["data"], kind, shape, what), tail
    if type(size) is not int or not 0 <= size <= len(tail):
        raise RequestError(f"{what}: binary_data_size is {shown(size)}; {len(tail)} bytes of binary data are left")
    return _from_bytes(tail[:size], kind, shape, what), tail[size:]


def _shape(value: Any, what: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > _MOST_DIMENSIONS:
        raise RequestError(f"{what}: shape must be a list of at most {_MOST_DIMENSIONS} sizes")
    if not all(type(size) is int and 0 <= size < 2**31 for size in value):
        raise RequestError(f"{what}: shape holds something that is no size: {shown(value)}")
    if 0 in value and math.prod(size for size in value if size) >= _MOST_ELEMENTS:  # which no array can have
        raise RequestError(f"{what}: shape is too large: {shown(value)}")
    return tuple(value)


def _from_json(data: Any, kind: str, shape: tuple[int, ...], what: str) -> Array:
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
        with np.errstate(over="ignore"):  # what becomes infinite is refused with the values
            return np.array(flat, _NUMPY[kind]).reshape(shape)
    except OverflowError:
        raise RequestError(f"{what}: its data hold a value that does not fit {kind}") from None


def _flat(data: Any, shape: tuple[int, ...], what: str) -> list[Any]:
    """The elements of data, which may be nested as the shape says, or flat."""
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


def _from_bytes(data: memoryview, kind: str, shape: tuple[int, ...], what: str) -> Array:
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


def _outputs(request: Mapping[str, Any]) -> dict[str, bool | None] | None:
    listed = request.get("outputs")
    if listed is None or listed == []:
        return None
    if not isinstance(listed, list):
        raise RequestError("outputs must be a list")
    outputs: dict[str, bool | None] = {}
    for i, entry in enumerate(listed):
        output = _object(entry, f"outputs[{i}]")
        name = _named(output, f"outputs[{i}]")
        if name in outputs:
            raise RequestError(f"output {shown(name)} is asked for twice")
        parameters = _parameters(output, f"output {shown(name)}")
        outputs[name] = read_flag(parameters, "binary_data", f"output {shown(name)}")
    return outputs


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RequestError(f"{what} must be a JSON object")
    return value


def _parameters(value: Mapping[str, Any], what: str) -> dict[str, Any]:
    given = value.get("parameters")
    parameters = {} if given is None else _object(given, f"the parameters of {what}")
    for name in _UNSUPPORTED:
        if parameters.get(name):
            raise RequestError(f"{what}: the parameter {name} is not supported here")
    return parameters


def _named(value: Mapping[str, Any], what: str) -> str:
    name = _text(value.get("name"), f"{what}: name")
    if not name:
        raise RequestError(f"{what} has no name")
    return name


def _text(value: Any, what: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise RequestError(f"{what} must be a text, it is {shown(value)}")
    return value


def _description(value: Value) -> dict[str, Any]:
    if isinstance(value, np.ndarray):
        return {"datatype": datatype(value.dtype.name), "shape": list(value.shape)}
    return {"datatype": BYTES, "shape": [len(value)]}


def _blob(value: Value) -> bytes:
    if isinstance(value, np.ndarray):
        return value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
    encoded = [text.encode() for text in value]
    return b"".join(chain.from_iterable((_LENGTH.pack(len(text)), text) for text in encoded))


def _listed(value: Value) -> list[Any]:
    """Elements in a flat list; JSON has no NaN or infinity, for which null stands."""
    if not isinstance(value, np.ndarray):
        return list(value)
    flat: list[Any] = value.ravel().tolist()
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        return [number if math.isfinite(number) else None for number in flat]
    return flat
