"""What tasks are called that have a folder each. On purpose the exporter's rule is not used, since it is checked.

A task has its folder's name. Folders that a trainer makes (``checkpoint-500``), that PEFT makes (``default``) and that
the hub's cache makes say nothing, so the one above, or the repository, gives the name. Where several are called alike,
the folders above in which they differ do.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path


def folder_names(folders: Sequence[Path]) -> list[str]:
    """The name of each folder's task."""
    full = [_without_cache(folder.absolute()) for folder in folders]
    short = [_without_last(path) for path in full]
    paths = full if len(set(short)) < len(short) else short
    for levels in count(1):
        ends = [path.parts[1:][-levels:] for path in paths]
        if len(set(ends)) == len(ends) or levels > max(len(path.parts) for path in paths):
            break
    return [_apart(end, ends) for end in ends]


def _apart(end: tuple[str, ...], ends: Sequence[tuple[str, ...]]) -> str:
    """The parts of an end that are not every other's at the same place, counted from the last."""
    own: list[str] = []
    for place in range(1, len(end) + 1):
        if any(len(other) < place or other[-place] != end[-place] for other in ends):
            own.insert(0, end[-place])
    return "-".join(own) or end[-1]


def _without_last(path: Path) -> Path:
    name, _, number = path.name.rpartition("-")
    if path.name == "default" or (name == "checkpoint" and number.isdigit()):
        return _without_last(path.parent)
    return path


def _without_cache(path: Path) -> Path:
    """``.../models--owner--name/snapshots/<commit>/rest`` as ``.../owner/name/rest``."""
    for above in path.parents:
        if above.name == "snapshots" and above.parent.name.startswith("models--"):
            owner_and_name = above.parent.name.split("--")[1:]
            rest = path.relative_to(above).parts[1:]
            return above.parent.parent.joinpath(*owner_and_name, *rest)
    return path
