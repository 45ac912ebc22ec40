"""Links in the folders of a base or an adapter must not lead outside of the folder.

A folder from a stranger may hold a link to any file of the user. An export would copy that file into the bundle, and
the bundle may be published. The cache of the Hugging Face hub consists of links to its own files, so these are allowed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from eptx.errors import EptxError

_WHAT_TO_DO = "put the file itself there, or remove the link"


def check_links(folder: Path, *, error: type[EptxError]) -> None:
    """Refuses a folder that holds a link to a file outside, a FIFO, a socket or a device.

    It does not look into folders inside the folder, because eptx reads none of them.

    Args:
        folder: of a base or an adapter. It may itself be a link, because the user names it.
        error: the class to raise.
    """
    home = folder.resolve()
    try:
        with os.scandir(home) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as e:
        raise error(f"{folder.name}: cannot be listed: {e.strerror}") from None
    for entry in found:
        try:
            mode = entry.stat().st_mode
            target = Path(entry.path).resolve(strict=True) if entry.is_symlink() else None
        except (OSError, RuntimeError):  # a circle of links raises one of these
            raise error(f"{folder.name}: {entry.name!r} is a link to nothing; {_WHAT_TO_DO}") from None
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            name = entry.name if entry.name.isprintable() else repr(entry.name)
            raise error(f"{name}: not a regular file")
        if target is not None and not target.is_relative_to(home) and not _in_cache(home, target):
            raise error(f"{folder.name}: {entry.name!r} is a link to a file outside the folder; {_WHAT_TO_DO}")


def _in_cache(home: Path, target: Path) -> bool:
    """Whether the folder is in the hub's cache, where ``snapshots/<revision>/...`` links to ``blobs/<hash>``."""
    caches = (place.parent for place in home.parents if place.name == "snapshots")
    return any(target.parent == cache / "blobs" for cache in caches)
