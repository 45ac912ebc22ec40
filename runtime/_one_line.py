"""What ONNX Runtime says, on one line."""

from __future__ import annotations

import re

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


def one_line(e: BaseException, limit: int = 300) -> str:
    """An exception's message on one printable line."""
    text = _PREFIX.sub("", str(e))
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split()) or type(e).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
