"""What ONNX Runtime says, and what callers give, on one line."""

from __future__ import annotations

import re
from typing import Any

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


def one_line(e: BaseException, limit: int = 300) -> str:
    """An exception's message on one printable line."""
    text = _PREFIX.sub("", str(e))
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split()) or type(e).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def shown(value: Any, limit: int = 60) -> str:
    """What a caller gave, for a message: on one line, and short."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no integers of thousands of digits
        return f"a long {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 3] + "..."
