"""Whose file it is that an error is about, where there are several adapters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from eptx.errors import EptxError

_FILES = ("adapter_", "task_heads.")


@contextmanager
def in_folder(name: str) -> Iterator[None]:
    """A block that reads one adapter: its errors that begin with a file's name get the folder's before it."""
    try:
        yield
    except EptxError as error:
        if not str(error).startswith(_FILES):
            raise
        raise type(error)(f"{name}/{error}") from None
