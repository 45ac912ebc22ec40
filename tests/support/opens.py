"""Counts how often files of a folder are opened, by whatever library: Linux tells (inotify)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OPEN, _CLOSE = 0x20, 0x10  # both are watched: equal events that follow each other are told once
_EVENT = struct.Struct("iIII")


@contextmanager
def counted_opens(folder: Path) -> Iterator[Counter[str]]:
    """A block; when it ends, the counter says how often each file was opened in it."""
    libc, opens = ctypes.CDLL(None, use_errno=True), Counter[str]()
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert descriptor >= 0
    try:
        assert libc.inotify_add_watch(descriptor, os.fsencode(folder), _OPEN | _CLOSE) >= 0
        yield opens
        data = os.read(descriptor, 1 << 20)
    finally:
        os.close(descriptor)
    while data:
        _, mask, _, length = _EVENT.unpack_from(data)
        name = data[_EVENT.size : _EVENT.size + length].rstrip(b"\0").decode()
        if mask & _OPEN and name:
            opens[name] += 1
        data = data[_EVENT.size + length :]
