"""Messages of other libraries, values of callers and lists of names, on one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

#: What ONNX Runtime says before it says what is wrong: its code, and a path that the user knows.
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed: ?)?")


def one_line(e: BaseException, limit: int = 300) -> str:
    """An exception's message on one printable line."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(e)).split())
    text = _PREFIX.sub("", text) or type(e).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def both_ends(e: BaseException, limit: int = 300) -> str:
    """`one_line` of a message that names its place first and says what is wrong last: cut in the middle."""
    text = one_line(e, 10_000)
    start = limit // 3
    return text if len(text) <= limit else f"{text[:start]} ... {text[start + 5 - limit :]}"


def shown(value: Any, limit: int = 60) -> str:
    """What a caller gave, for a message: on one line, and short."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no integers of thousands of digits
        return f"a long {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def some(names: Sequence[str], most: int = 4) -> str:
    """The first few names, and how many more there are."""
    listed = ", ".join(names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"
