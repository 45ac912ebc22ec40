"""The names of tasks that are a folder each: what tells the folders apart."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

#: Folders that training makes inside the one that a user has named.
_UNTELLING = re.compile(r"checkpoint-\d+|default")


def names_of(folders: Sequence[Path]) -> list[str]:
    """One name for each folder: its own, or where several are called alike, its parents' that tell them apart.

    ``run1/checkpoint-500`` and ``run2/checkpoint-500`` become run1 and run2; a folder in the hub's cache has the name
    of its repository.
    """
    places = [_parts(folder) for folder in folders]
    telling = [_telling(parts) for parts in places]
    chosen = telling if len(set(telling)) == len(telling) else places
    return _shortest(chosen)


def _parts(folder: Path) -> tuple[str, ...]:
    parts = Path(os.path.abspath(folder)).parts[1:]
    at = len(parts) - 1 - parts[::-1].index("snapshots") if "snapshots" in parts else 0
    if at and parts[at - 1].startswith("models--"):  # models--owner--name/snapshots/<commit>
        return (*parts[: at - 1], *parts[at - 1].split("--")[1:], *parts[at + 2 :])
    return parts


def _telling(parts: tuple[str, ...]) -> tuple[str, ...]:
    while len(parts) > 1 and _UNTELLING.fullmatch(parts[-1]):
        parts = parts[:-1]
    return parts


def _shortest(places: Sequence[tuple[str, ...]]) -> list[str]:
    """The fewest parts from the end that differ, without those that all have in common."""
    most = max(map(len, places), default=0)
    padded = [("",) * (most - len(place)) + place for place in places]
    first = next((at for at in range(most - 1, -1, -1) if len({place[at:] for place in padded}) == len(padded)), 0)
    differ = [at for at in range(first, most) if len({place[at] for place in padded}) > 1]
    return ["-".join(place[at] for at in differ if place[at]) or place[-1] for place in padded]
