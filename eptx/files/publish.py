"""Puts a finished folder, or file, in the place of another in one step.

A folder is written beside the target under a hidden name, synced, and exchanged with the target. A reader sees the old
folder, the new one or none, even after the process was killed. The process that writes the hidden folder holds a lock
on it. A hidden folder without a lock was left by a process that died; the next publication to the same target removes
it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eptx.errors import LimitError, UsageError
from eptx.files.safe_files import SCARCE

if sys.platform != "win32":
    import fcntl

#: Errors of a disk that is full.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class Staging:
    """A hidden, locked folder beside ``target`` that takes its place when it is `publish`\\ ed.

    Args:
        target: where the folder goes; missing parents are made.

    Attributes:
        folder: where to write.
    """

    def __init__(self, target: Path) -> None:
        self.target = Path(os.path.abspath(target))
        self._made: list[Path] = []
        self._lock: int | None = None
        if not self.target.name:
            raise UsageError(f"{target}: cannot be replaced; name a folder inside it")
        try:
            self._make_parents()
            remove_leftovers(self.target)
            self.folder = self._make_folder()
        except OSError as e:
            self._remove_parents()
            raise os_error(self.target, e) from None

    def publish(self) -> None:
        """Syncs the folder and puts it in the target's place; the old folder is removed.

        Raises:
            UsageError: the target is something that a folder cannot replace.
            LimitError: the disk is full.
        """
        try:
            seal(self.folder)
            if not self.target.exists() or not _exchange(self.folder, self.target):
                self._rename()
            sync(self.target.parent)
        except OSError as e:
            raise os_error(self.target, e) from None
        self._made.clear()

    def close(self) -> None:
        """Removes what has the hidden name: after `publish` the old folder, else the unfinished one."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._remove_parents()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _rename(self) -> None:
        """Moves the old folder away first, where the system cannot exchange folders; a kill in between leaves none."""
        if not self.target.exists():
            os.rename(self.folder, self.target)
            return
        aside = self.folder.with_name(self.folder.name + "-old")
        os.rename(self.target, aside)
        try:
            os.rename(self.folder, self.target)
        except OSError:
            os.rename(aside, self.target)
            raise
        shutil.rmtree(aside, ignore_errors=True)

    def _make_folder(self) -> Path:
        while True:
            folder = self.target.with_name(f".{self.target.name}.eptx-{secrets.token_hex(4)}")
            folder.mkdir(mode=0o755)
            try:
                self._lock = _lock(folder)
            except (
                FileNotFoundError,
                BlockingIOError,
            ):  # someone took the folder for a leftover before it was locked
                continue
            return folder

    def _make_parents(self) -> None:
        missing = [p for p in self.target.parents if not p.exists()]
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
            self._made.append(parent)

    def _remove_parents(self) -> None:
        while self._made:
            try:
                self._made.pop().rmdir()
            except OSError:
                return


def remove_leftovers(target: Path) -> None:
    """Removes the hidden folders beside ``target`` that a killed process left."""
    prefix = f".{target.name}.eptx-"
    with os.scandir(target.parent) as entries:
        names = [e.name for e in entries if e.name.startswith(prefix) and e.is_dir(follow_symlinks=False)]
    for name in names:
        folder = target.with_name(name)
        try:
            descriptor = _lock(folder)
        except OSError:  # held by a running export, or already gone
            continue
        if descriptor is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


def seal(folder: Path) -> None:
    """Gives every file mode 0644 and every folder 0755, and syncs all of it to the disk."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            path = Path(root, name)
            path.chmod(0o644)
            sync(path)
        Path(root).chmod(0o755)
        sync(Path(root))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden file to write; at the end of the block it takes the place of ``path``, whose readers see old or new.

    Raises:
        UsageError: it cannot be written.
        LimitError: the disk is full.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        temporary.chmod(0o644)
        sync(temporary)
        os.replace(temporary, path)
    except OSError as e:
        raise os_error(path, e) from None
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def os_error(path: Path, e: OSError) -> UsageError | LimitError:
    """The one-line error for a failed write at ``path``."""
    if e.errno in FULL:
        return LimitError(f"{path}: {e.strerror}; free space or choose another folder")
    if e.errno in SCARCE:
        return LimitError(f"{path}: cannot be written: {e.strerror}")
    return UsageError(f"{path}: cannot be written: {e.strerror or e}")


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder locked; None where the system has no such locks.

    Raises:
        FileNotFoundError: the folder is gone, or another one has its name.
        BlockingIOError: another process holds it.
    """
    if sys.platform == "win32":
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(folder)):
            raise FileNotFoundError(folder)
    except OSError as e:
        os.close(descriptor)
        if isinstance(e, BlockingIOError | FileNotFoundError):
            raise
        return None  # a file system without locks: then nothing is taken for a leftover
    return descriptor


def _exchange(a: Path, b: Path) -> bool:
    """Exchanges two paths in one step; False where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    if rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code))
