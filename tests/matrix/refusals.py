"""The cells that are refused, with the very message."""

from __future__ import annotations

#: (row or setting, mode) -> the message. A setting's cell is the same on every row that it is tried on.
REFUSALS: dict[tuple[str, str], str] = {}
