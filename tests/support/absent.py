"""Code that runs as if packages were not installed."""

from __future__ import annotations

from collections.abc import Collection

#: Put before other code of a process of its own.
_ABSENT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def without(absent: Collection[str], code: str) -> str:
    """The code for a process in which none of these packages is found."""
    return _ABSENT.format(absent=tuple(absent)) + code
