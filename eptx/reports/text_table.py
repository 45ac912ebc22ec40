"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], kinds: str) -> list[str]:
    """The lines of a table whose columns are as wide as their widest cell.

    Args:
        rows: the cells of every row, the header first.
        kinds: a letter per column: ``t`` text, ``n`` numbers, which align right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, kinds, strict=True)
        lines.append("  ".join(c.rjust(w) if kind == "n" else c.ljust(w) for c, w, kind in cells).rstrip())
    return lines
