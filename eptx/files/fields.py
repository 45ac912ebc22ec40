"""Typed access to a JSON object. Errors name the field."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from eptx.errors import EptxError

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_INT64_MAX = 2**63 - 1
#: Every size, count and token is smaller: graphs, tokenizers and GenAI store them in 32 bits.
COUNTS = 1 << 31

T = TypeVar("T")


class Fields:
    """A JSON object whose fields are read one by one. `done` refuses the fields that nobody read.

    Args:
        value: the object, as `eptx.files.strict_json` reads it.
        where: the file and field that it comes from; errors begin with it.
        error: the class to raise.
    """

    def __init__(self, value: Any, *, where: str, error: type[EptxError]) -> None:
        self._where = where
        self._error = error
        if not isinstance(value, dict):
            raise self.bad("must be a JSON object")
        self._value: dict[str, Any] = value
        self._taken: set[str] = set()

    def bad(self, problem: str) -> EptxError:
        """An error about this object."""
        return self._error(f"{self._where}: {problem}")

    def read(self, read: Callable[[Fields], T]) -> T:
        """What a function makes of the object. It must read every field."""
        value = read(self)
        self.done()
        return value

    def done(self) -> None:
        """Refuses fields that nobody read."""
        for key in self._value:
            if key not in self._taken:
                raise self.bad(f"unknown field {_short(key)}")

    def present(self, key: str) -> bool:
        """Whether the field is there and not null. Either way it counts as read."""
        self._taken.add(key)
        return self._value.get(key) is not None

    def string(self, key: str) -> str:
        value = self._take(key)
        if not isinstance(value, str):
            raise self.bad(f"{_short(key)} must be a string")
        return value

    def name(self, key: str) -> str:
        """A word in lower case: letters, digits and underscores."""
        value = self.string(key)
        if not _NAME.fullmatch(value):
            raise self.bad(f"{_short(key)} must be a name in lower case")
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str:
        value = self._take(key)
        if value not in choices:
            raise self.bad(f"{_short(key)} must be one of {', '.join(choices)}")
        return str(value)

    def integer(self, key: str, *, least: int | None = None) -> int:
        value = self._take(key)
        if type(value) is not int or abs(value) > _INT64_MAX or (least is not None and value < least):
            raise self.bad(f"{_short(key)} must be an integer" + (f" of at least {least}" if least is not None else ""))
        return value

    def count(self, key: str, *, least: int = 0) -> int:
        """A size, a count, or an index."""
        value = self.integer(key, least=least)
        if value >= COUNTS:
            raise self.bad(f"{_short(key)} must be an integer below {COUNTS}")
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            raise self.bad(f"{_short(key)} must be a number")
        return float(value)

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        values = self.array(key)
        if not all(type(v) in (int, float) and abs(v) <= sys.float_info.max for v in values):
            raise self.bad(f"{_short(key)} must be a list of numbers")
        return tuple(map(float, values))

    def boolean(self, key: str) -> bool:
        value = self._take(key)
        if not isinstance(value, bool):
            raise self.bad(f"{_short(key)} must be true or false")
        return value

    def array(self, key: str) -> list[Any]:
        value = self._take(key)
        if not isinstance(value, list):
            raise self.bad(f"{_short(key)} must be a list")
        return value

    def string_list(self, key: str) -> tuple[str, ...]:
        value = self.array(key)
        if not all(isinstance(v, str) for v in value):
            raise self.bad(f"{_short(key)} must be a list of strings")
        return tuple(value)

    def child(self, key: str) -> Fields:
        return self._child(key, self._take(key))

    def children(self, key: str) -> list[Fields]:
        return [self._child(f"{key}[{i}]", v) for i, v in enumerate(self.array(key))]

    def items(self) -> list[tuple[str, Fields]]:
        """All fields, each of which must be an object."""
        return [(key, self._child(_short(key), self._take(key))) for key in self._value]

    def strings(self) -> dict[str, str]:
        """All fields, each of which must be a string."""
        return {key: self.string(key) for key in self._value}

    def raw(self) -> dict[str, Any]:
        """The object itself, whatever it holds."""
        return self._value

    def _take(self, key: str) -> Any:
        self._taken.add(key)
        if key not in self._value:
            raise self.bad(f"{_short(key)} is missing")
        return self._value[key]

    def _child(self, key: str, value: Any) -> Fields:
        where = f"{self._where}: {key}" if ": " not in self._where else f"{self._where}.{key}"
        return Fields(value, where=where, error=self._error)


def _short(key: str) -> str:
    """A field's name, printable on one line."""
    if key.isprintable() and len(key) <= 60:
        return key
    return repr(key[:60])
