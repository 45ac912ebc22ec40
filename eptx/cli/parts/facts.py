"""Facts, nested as JSON has them, as lines that fit a screen."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from eptx.cli.parts.common import printable
from eptx.reports.text_table import aligned

#: Rows of a table; a bundle may have thousands of tasks.
_MOST = 24
_LEAST_WIDTH, _CELL, _LAST = 40, 40, 16


def screen_width() -> int:
    """Columns of the terminal, of which a table may use all; 80 where there is none."""
    return max(_LEAST_WIDTH, shutil.get_terminal_size((80, 24)).columns)


def fact_lines(facts: Mapping[str, Any], width: int) -> list[str]:
    """One line for each fact, or several; what is absent (None) or empty is left out.

    Lists of objects become tables, of which only the first rows are shown if there are many.
    """
    lines: list[str] = []
    for key, value in facts.items():
        if value is None or value in ({}, [], (), ""):
            continue
        if isinstance(value, Mapping) and not all(map(_is_plain, value.values())):
            lines += [f"{printable(str(key))}:", *(f"  {line}" for line in fact_lines(value, width - 2))]
        elif isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value):
            lines += [f"{printable(str(key))}:", *(f"  {line}" for line in table_lines(value, width - 2))]
        else:
            lines += wrapped(f"{key}: {short(value)}", width)
    return lines


def table_lines(entries: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """Objects with the same keys as the rows of a table.

    Columns without a value are left out. Where the rest does not fit, the widest comes last and is wrapped.
    """
    keys = [key for key in entries[0] if any(entry.get(key) not in (None, [], {}, "") for entry in entries)]
    if not keys:
        return []
    cells = {key: [key, *(printable(_cell(entry.get(key))) for entry in entries[:_MOST])] for key in keys}
    wide = {key: max(map(len, own)) for key, own in cells.items()}
    last = keys[-1] if sum(wide.values()) + 2 * (len(keys) - 1) <= width else max(keys, key=lambda key: wide[key])
    first = [key for key in keys if key != last]
    columns = [[_clipped(cell) for cell in cells[key]] for key in first]
    left = width - sum(max(map(len, column)) + 2 for column in columns)
    if left < min(_LAST, wide[last]):  # too many columns for this screen: one object after the other
        text = ("; ".join(f"{key} {_cell(entry[key])}" for key in [*first, last]) for entry in entries[:_MOST])
        lines = [line for row in text for line in wrapped(row, width)]
    else:
        rows: list[list[str]] = []
        for *own, text in zip(*columns, cells[last], strict=True):
            parts = textwrap.wrap(text, left, break_on_hyphens=False) or [""]
            rows += [[*own, parts[0]], *([""] * len(own) + [part] for part in parts[1:])]
        kinds = ["n" if all(_is_number(entry.get(key)) for entry in entries) else "t" for key in first]
        lines = aligned(rows, "".join(kinds) + "t")
    more = len(entries) - _MOST
    return lines if more <= 0 else [*lines, f"and {more} more, which --json lists"]


def wrapped(text: str, width: int) -> list[str]:
    """A line, broken where it is wider than the screen."""
    return textwrap.wrap(printable(text), width, subsequent_indent="  ", break_on_hyphens=False) or [""]


def short(value: Any) -> str:
    """A value in a line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {short(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(short, value)) + "]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    return text if not text.startswith("sha256:") else f"{text[:19]}..."


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(short, value)) if isinstance(value, list | tuple) else short(value)


def _is_plain(value: Any) -> bool:
    """Whether a value stands in a line: no object, and no list of objects or of lists."""
    if isinstance(value, list | tuple):
        return not any(isinstance(item, Mapping | list | tuple) for item in value)
    return not isinstance(value, Mapping)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _clipped(text: str) -> str:
    return text if len(text) <= _CELL else f"{text[: _CELL - 3]}..."
