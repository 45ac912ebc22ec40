"""Whose file it is that an error is about, where several folders have files of the same names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from eptx.errors import EptxError


@contextmanager
def in_folder(name: str, files: tuple[str, ...]) -> Iterator[None]:
    """A block that reads a folder: its errors that begin with a file's name get the folder's before it.

    Args:
        name: the folder's.
        files: how the names of its files begin.
    """
    try:
        yield
    except EptxError as error:
        if not str(error).startswith(files):
            raise
        raise type(error)(f"{name}/{error}") from None
