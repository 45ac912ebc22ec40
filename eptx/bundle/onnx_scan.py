"""What an ``.onnx`` file asks for, read without the onnx package and without trusting the file.

The scan walks the protocol-buffer encoding. It collects the names of external data files, the operator domains and the
local functions, in the main graph, nested graphs, attributes and functions alike. It skips weights. The walk keeps its
own stack, so nesting cannot exhaust Python's. It only moves forward, so it ends.

ONNX Runtime reads the file with a protocol-buffer library, which accepts more than honest writers write. It drops a
field whose wire type differs from the schema. Of a number or text that comes twice it takes the last; it merges a
message that comes twice. The scan refuses a file with such a field, so that both readers see the same model.

Field numbers are those of onnx.proto (https://github.com/onnx/onnx, Apache-2.0).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from eptx.errors import BundleError
from eptx.files.safe_files import open_regular

_FIELD_LIMIT = 2_000_000  # fields visited; a graph of 10 000 nodes has about 300 000
_STRING_LIMIT = 4096
_DEPTH_LIMIT = 200  # protocol-buffer readers stop at 100

# message -> field number -> message to walk into
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 8: "Opset", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
    "Function": {7: "Node", 9: "Opset", 11: "Attribute"},
}
# message -> fields of `_CHILDREN` that a message has once
_SINGLE: dict[str, tuple[int, ...]] = {"Model": (7,), "Training": (1, 2), "Attribute": (5, 6, 22), "Sparse": (1, 2)}
# message -> field number -> name of a scalar to keep
_SCALARS: dict[str, dict[int, str]] = {
    "Opset": {1: "domain", 2: "version"},
    "Node": {4: "op_type", 7: "domain"},
    "Function": {1: "name", 10: "domain"},
    "Entry": {1: "key", 2: "value"},
}


@dataclass(frozen=True)
class ExternalData:
    """A weight kept in another file: the name as written, first byte, number of bytes (None: to the end)."""

    location: str
    offset: int
    length: int | None


@dataclass
class OnnxScan:
    """What a model asks for.

    Attributes:
        opsets: (domain, version) pairs that the model and its functions import.
        operators: (domain, type) of every node.
        functions: (domain, name) of the model's own functions.
        external: every weight that is kept in another file.
    """

    opsets: set[tuple[str, int]] = field(default_factory=set)
    operators: set[tuple[str, str]] = field(default_factory=set)
    functions: set[tuple[str, str]] = field(default_factory=set)
    external: list[ExternalData] = field(default_factory=list)


def scan_onnx(path: Path) -> OnnxScan:
    """Scans a model file.

    Raises:
        BundleError: the file is not an ONNX model, or is damaged.
    """
    with open_regular(path, error=BundleError, follow=False) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _scan(data)
        except (_Damaged, OSError) as e:
            raise BundleError(f"{path.name}: not an ONNX model: {e}") from None
        except ValueError:
            raise BundleError(f"{path.name}: not an ONNX model: the file is empty") from None


def scan_bytes(data: bytes) -> OnnxScan:
    """Like `scan_onnx`, for a model in memory."""
    try:
        return _scan(data)
    except _Damaged as e:
        raise BundleError(f"not an ONNX model: {e}") from None


class _Damaged(Exception):
    """The bytes are not a protocol-buffer message."""


_Scalar = str | int
_Data = bytes | mmap.mmap
_NUMBER, _BYTES = 0, 2  # wire types
#: What files in ONNX Runtime's own format have at byte 4; it reads them without a protocol-buffer library.
_ORT_FORMAT = b"ORTM"


@dataclass
class _Message:
    """A message whose fields are being read."""

    kind: str
    fields: Iterator[_Field]
    scalars: dict[str, _Scalar] = field(default_factory=dict)
    entries: list[dict[str, _Scalar]] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def check(self, number: int, wire: int) -> None:
        """Refuses a field that matters and that protocol-buffer libraries drop, overwrite or merge."""
        wanted = _NUMBER if (self.kind, number) == ("Opset", 2) else _BYTES
        if wire != wanted:
            raise _Damaged(f"field {number} of a message {self.kind} has wire type {wire}, not {wanted}")
        if number in self.seen:
            raise _Damaged(f"field {number} of a message {self.kind} comes twice")
        if number in _SCALARS.get(self.kind, ()) or number in _SINGLE.get(self.kind, ()):
            self.seen.add(number)


def _scan(data: _Data) -> OnnxScan:
    if data[4:8] == _ORT_FORMAT:
        raise _Damaged("it is in the format of ONNX Runtime")
    result = OnnxScan()
    open_messages = [_Message("Model", _fields(data, 0, len(data)))]
    budget = _FIELD_LIMIT
    graphs = 0
    while open_messages:
        message = open_messages[-1]
        children, names = _CHILDREN.get(message.kind, {}), _SCALARS.get(message.kind, {})
        for number, wire, start, end in message.fields:
            budget -= 1
            if budget < 0:
                raise _Damaged(f"more than {_FIELD_LIMIT} fields")
            if number not in children and number not in names:
                continue
            message.check(number, wire)
            if number in names:
                message.scalars[names[number]] = _signed(start) if wire == _NUMBER else _text(data, start, end)
            elif children[number] == "Entry":
                message.entries.append(_entry(data, start, end))
            else:
                graphs += children[number] == "Graph"
                open_messages.append(_Message(children[number], _fields(data, start, end)))
                break
        else:
            open_messages.pop()
            _keep(result, message)
        if len(open_messages) > _DEPTH_LIMIT:
            raise _Damaged(f"nested more than {_DEPTH_LIMIT} deep")
    if not graphs:
        raise _Damaged("it holds no graph")
    return result


def _keep(result: OnnxScan, message: _Message) -> None:
    domain, version = str(message.scalars.get("domain", "")), message.scalars.get("version", 0)
    if message.kind == "Opset":
        result.opsets.add((domain, version if isinstance(version, int) else 0))
    elif message.kind == "Node":
        result.operators.add((domain, str(message.scalars.get("op_type", ""))))
    elif message.kind == "Function":
        result.functions.add((domain, str(message.scalars.get("name", ""))))
    elif message.kind == "Tensor" and message.entries:
        result.external.extend(_external(message.entries))


def _external(entries: list[dict[str, _Scalar]]) -> Iterator[ExternalData]:
    """One reference per location given: readers differ on which of several counts."""
    pairs = [(str(e.get("key", "")), str(e.get("value", ""))) for e in entries]
    numbers = {}
    for key, text in pairs:
        if key in ("offset", "length"):
            if key in numbers or not text.isascii() or not text.isdigit() or len(text) > 19:
                raise _Damaged(f"a weight's {key} is not one number")
            numbers[key] = int(text)
    for location in [text for key, text in pairs if key == "location"] or [""]:
        yield ExternalData(location, numbers.get("offset", 0), numbers.get("length"))


def _entry(data: _Data, start: int, end: int) -> dict[str, _Scalar]:
    if end - start > 2 * _STRING_LIMIT:
        raise _Damaged("a weight's file name is too long")
    names = _SCALARS["Entry"]
    message = _Message("Entry", _fields(data, start, end))
    for number, wire, first, last in message.fields:
        if number in names:
            message.check(number, wire)
            message.scalars[names[number]] = _text(data, first, last)
    return message.scalars


def _signed(value: int) -> int:
    """A number as int64."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _text(data: _Data, start: int, end: int) -> str:
    if end - start > _STRING_LIMIT:
        raise _Damaged("a name is too long")
    try:
        return data[start:end].decode("utf-8")
    except UnicodeDecodeError:
        raise _Damaged("a name is not UTF-8") from None


#: Number and wire type; the integer and its end, or the first and last (exclusive) byte of the content.
_Field = tuple[int, int, int, int]


def _fields(data: _Data, at: int, end: int) -> Iterator[_Field]:
    """The fields of one message."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if number == 0 or number >= 1 << 29:
            raise _Damaged(f"field number {number} at byte {at}")
        if wire == _NUMBER:
            value, at = _varint(data, at, end)
            yield number, wire, value, at
        elif wire == _BYTES:
            size, at = _varint(data, at, end)
            if size > end - at:
                raise _Damaged(f"the content at byte {at} ends past its message")
            yield number, wire, at, at + size
            at += size
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            if size > end - at:
                raise _Damaged("it ends inside a number")
            yield number, wire, at, at + size
            at += size
        else:
            raise _Damaged(f"wire type {wire} at byte {at}")


def _varint(data: _Data, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _Damaged("it ends inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise _Damaged(f"a number of more than 10 bytes at byte {at}")
