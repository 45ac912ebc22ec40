"""The part of Protocol buffers' text format that configurations need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias


class Name(str):
    """A value that is written without quotes: one of an enumeration."""

    __slots__ = ()


Value: TypeAlias = "str | int | Mapping[str, Value] | Sequence[Value]"
Message: TypeAlias = Mapping[str, Value]


def text_format(message: Message, indent: str = "") -> str:
    """A message as text, a field on each line.

    Args:
        message: fields by name, in the order in which they are written. A message is a mapping, a repeated field a
            list (of a map, of messages of ``key`` and ``value``).
        indent: what to put before each line.
    """
    return "".join(_field(name, value, indent) for name, value in message.items())


def _field(name: str, value: Value, indent: str) -> str:
    if isinstance(value, Mapping):
        return f"{indent}{name} {{\n{text_format(value, indent + '  ')}{indent}}}\n"
    if isinstance(value, str | int):
        return f"{indent}{name}: {_scalar(value)}\n"
    if any(isinstance(item, Mapping) for item in value):
        return "".join(_field(name, item, indent) for item in value)
    return f"{indent}{name}: [ {', '.join(_scalar(item) for item in value)} ]\n".replace("[  ]", "[ ]")


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Name):
        return str(value)
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is no scalar")
    return f'"{"".join(map(_escaped, value.encode("utf-8", "surrogateescape")))}"'


def _escaped(byte: int) -> str:
    """A byte that is not plain ASCII is written as an octal number, which every parser reads."""
    if byte in b'"\\':
        return f"\\{chr(byte)}"
    return chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"
