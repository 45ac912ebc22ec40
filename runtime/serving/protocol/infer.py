"""Inference requests and their answers.

A body is a JSON object. With the binary tensor extension, a header says how many bytes are JSON, and the bytes of those
tensors that have a ``binary_data_size`` follow, one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eptx._one_line import shown
from eptx.errors import RequestError
from eptx.files.strict_json import parse_json
from eptx.runtime.outputs import Array
from eptx.runtime.serving.protocol.parameters import read_flag
from eptx.runtime.serving.protocol.tensors import (
    DATATYPES,
    Value,
    describe,
    from_bytes,
    from_json,
    read_shape,
    to_bytes,
    to_json,
)

#: The header that says how many bytes of a body are JSON, if binary data follow.
HEADER_LENGTH = "Inference-Header-Content-Length"

_UNSUPPORTED = ("sequence_id", "shared_memory_region", "classification")


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
        blobs: the inputs that came as binary data, and not in JSON.
    """

    inputs: Mapping[str, Array]
    parameters: Mapping[str, Any]
    id: str | None = None
    outputs: Mapping[str, bool | None] | None = None
    binary: bool = False
    blobs: frozenset[str] = frozenset()

    def is_binary(self, output: str) -> bool:
        """Whether an output is to be sent as binary data."""
        wanted = None if self.outputs is None else self.outputs.get(output)
        return self.binary if wanted is None else wanted


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
    inputs = _inputs(request, tail)
    return InferRequest(
        inputs=inputs,
        parameters=parameters,
        id=_text(request.get("id"), "id"),
        outputs=_outputs(request),
        binary=read_flag(parameters, "binary_data_output", "the request") or False,
        blobs=frozenset(entry["name"] for entry in request["inputs"] if "data" not in entry),
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
        entry: dict[str, Any] = {"name": name, **describe(value)}
        if request.is_binary(name):
            blobs.append(to_bytes(value))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = to_json(value)
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
    shape = read_shape(tensor.get("shape"), what)
    size = _parameters(tensor, what).get("binary_data_size")
    if (size is None) == ("data" not in tensor):
        raise RequestError(f"{what}: give either data or the parameter binary_data_size")
    if size is None:
        return from_json(tensor["data"], kind, shape, what), tail
    if type(size) is not int or not 0 <= size <= len(tail):
        raise RequestError(f"{what}: binary_data_size is {shown(size)}; {len(tail)} bytes of binary data are left")
    return from_bytes(tail[:size], kind, shape, what), tail[size:]


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
