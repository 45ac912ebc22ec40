"""Reading files that may be hostile, and names that must stay inside their folder."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from eptx.errors import EptxError, LimitError

_BLOCK = 1 << 20
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)
#: Errors of the machine, not of the file: no descriptors or no memory left.
SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@contextmanager
def open_regular(path: Path, *, error: type[EptxError], follow: bool = True) -> Iterator[BinaryIO]:
    """Opens a regular file to read, and nothing else.

    The kind is checked on the open descriptor, and opening does not block on a FIFO.

    Args:
        path: the file.
        error: what to raise when it is missing, unreadable, or a folder, FIFO, socket or device. Where the process
            has no descriptor or memory left, a `LimitError` is raised instead.
        follow: whether to follow a symbolic link. Folders of a user may hold links, as the Hugging Face cache does.
            A bundle must not.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _NONBLOCK | _BINARY | (0 if follow else _NOFOLLOW))
    except (OSError, ValueError) as e:
        raise _failure(e, error, f"{path.name}: cannot be read") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise error(f"{path.name}: not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def read_bytes(path: Path, *, error: type[EptxError], limit: int, follow: bool = True) -> bytes:
    """The content of a regular file of at most ``limit`` bytes."""
    with open_regular(path, error=error, follow=follow) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise error(f"{path.name}: larger than {limit} bytes")
    return data


def hash_file(path: Path, *, error: type[EptxError], follow: bool = True) -> tuple[int, str]:
    """Size and SHA-256 (64 hexadecimal digits) of a regular file, read in blocks."""
    digest = hashlib.sha256()
    size = 0
    with open_regular(path, error=error, follow=follow) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def fingerprint(files: dict[str, Path], *, error: type[EptxError]) -> str:
    """``sha256:<hex>`` over several files: their names and contents, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(files):
        size, content = hash_file(files[name], error=error)
        digest.update(f"{name}\0{size}\0{content}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def is_contained_name(name: str) -> bool:
    """Whether a relative POSIX name, as a file format gives it, stays inside its folder on every system."""
    if not name or len(name) > 1024 or any(ord(c) < 32 or c in '\\:*?"<>|\x7f' for c in name):
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))


def list_files(folder: Path, *, error: type[EptxError]) -> dict[str, int]:
    """The files below a folder: relative POSIX name → size in bytes.

    Raises:
        error: the folder cannot be listed, or holds a symbolic link, a FIFO, a socket or a device.
    """
    found: dict[str, int] = {}
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(folder / prefix) as entries:
                for entry in entries:
                    name = f"{prefix}{entry.name}"
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(f"{name}/")
                    elif stat.S_ISREG(status.st_mode):
                        found[name] = status.st_size
                    else:
                        raise error(f"{folder.name}: {name!r} is not a plain file")
        except OSError as e:
            raise _failure(e, error, f"{folder.name}: cannot be listed") from None
    return dict(sorted(found.items()))


def _failure(e: OSError | ValueError, error: type[EptxError], what: str) -> EptxError:
    """The error for a file, or a `LimitError` where the machine has no room for it."""
    scarce = isinstance(e, OSError) and e.errno in SCARCE
    reason = (e.strerror or str(e)) if isinstance(e, OSError) else str(e)
    return (LimitError if scarce else error)(f"{what}: {reason}")
