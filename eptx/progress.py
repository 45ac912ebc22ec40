"""Progress of long steps, on standard error.

Nothing is shown unless `shown` is on: a library stays silent, the command line turns it on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO


@dataclass
class _State:
    stream: TextIO | None = None
    depth: int = 0
    open_line: bool = False


_state = _State()


@contextmanager
def shown(enabled: bool = True, stream: TextIO | None = None) -> Iterator[None]:
    """Shows the steps that run inside it on ``stream`` (standard error), or hides them."""
    before = _state.stream
    _state.stream = (stream or sys.stderr) if enabled else None
    try:
        yield
    finally:
        _state.stream = before


@contextmanager
def step(label: str) -> Iterator[None]:
    """One long step: its label when it starts, and the seconds that it took when it ends."""
    start = time.monotonic()
    _begin(label)
    _state.depth += 1
    outcome = "failed"
    try:
        yield
        outcome = f"{time.monotonic() - start:.1f} s"
    finally:
        _state.depth -= 1
        _end(label, outcome)


def note(text: str) -> None:
    """One line among the steps."""
    _write(f"{_indent()}{text}\n")


def duration(seconds: float) -> str:
    """About how long: ``40 s``, ``4 min``, ``1.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _begin(label: str) -> None:
    _write(f"{_indent()}{label} ...")
    _state.open_line = _state.stream is not None


def _end(label: str, outcome: str) -> None:
    if _state.open_line:
        _state.open_line = False
        _write(f" {outcome}\n")
    else:
        _write(f"{_indent()}{label}: {outcome}\n")


def _indent() -> str:
    return "  " * _state.depth


def _write(text: str) -> None:
    if _state.stream is None:
        return
    if _state.open_line:
        text = "\n" + text
        _state.open_line = False
    try:
        _state.stream.write(text)
        _state.stream.flush()
    except (OSError, ValueError):  # a closed standard error must not end an export
        _state.stream = None
