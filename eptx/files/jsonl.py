"""Rows of text, and chats, from jsonl files, for validation, calibration and ``eptx run``."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from eptx.errors import EptxError
from eptx.files.safe_files import open_regular
from eptx.files.strict_json import parse_json

_LINE_LIMIT = 1 << 20


def read_rows(
    file: Path, *, error: type[EptxError], token_ids: bool = False, key: str = "text"
) -> Iterator[dict[str, Any]]:
    """Objects with ``text``, and optionally ``text_pair``, ``task`` and ``label``. Empty lines are skipped.

    Args:
        file: one JSON object a line, UTF-8.
        error: the class to raise, naming the file and the line.
        token_ids: whether a row may have ``input_ids`` instead of ``text``.
        key: what stands in the place of ``text``, where rows are not texts.
    """
    for _, row in read_lines(file, error=error, token_ids=token_ids, key=key):
        yield row


def read_lines(
    file: Path, *, error: type[EptxError], token_ids: bool = False, key: str = "text"
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of `read_rows`, each with its file and line, for messages."""
    with open_regular(file, error=error) as lines:
        for where, row in _values(lines, file.name, error):
            yield where, check_row(row, where, error, token_ids=token_ids, key=key)


def read_chats(lines: BinaryIO, name: str, *, error: type[EptxError]) -> Iterator[dict[str, Any]]:
    """Objects with ``messages``, and optionally ``task`` and what their chat template reads. Empty lines are skipped.

    Args:
        lines: one JSON object a line, UTF-8.
        name: what messages call them.
        error: the class to raise, naming the line.
    """
    for where, row in _values(lines, name, error):
        if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
            raise error(f"{where}: must be an object with a list 'messages'")
        yield _checked(row, where, error)


def _values(lines: BinaryIO, name: str, error: type[EptxError]) -> Iterator[tuple[str, Any]]:
    """The JSON value of each line that is not empty, with the line's name."""
    number = 0
    while line := lines.readline(_LINE_LIMIT):
        number += 1
        where = f"{name}, line {number}"
        if len(line) == _LINE_LIMIT:
            raise error(f"{where}: longer than {_LINE_LIMIT} bytes")
        if line.removeprefix(codecs.BOM_UTF8).strip():
            yield where, parse_json(line, what=where, error=error)


def check_row(
    row: Any, where: str, error: type[EptxError], *, token_ids: bool = False, key: str = "text"
) -> dict[str, Any]:
    """Checks a row from any source, and returns it as `read_rows` does.

    Args:
        row: the row.
        where: its name in messages.
        error: the class to raise.
        token_ids: as in `read_rows`.
        key: likewise.
    """
    if not (token_ids and _has_ids(row)):
        _check_text(row, where, error, key, " or a list 'input_ids' of token ids" if token_ids else "")
    return _checked(row, where, error)


def _has_ids(row: Any) -> bool:
    ids = row.get("input_ids") if isinstance(row, dict) else None
    return isinstance(ids, list) and bool(ids) and all(type(i) is int and i >= 0 for i in ids)


def _check_text(row: Any, where: str, error: type[EptxError], key: str, others: str) -> None:
    if not isinstance(row, dict) or not isinstance(row.get(key), str):
        raise error(f"{where}: must be an object with a string {key!r}{others}")
    if others and row.get("input_ids") is not None:
        raise error(f"{where}: 'input_ids' must be a list of token ids")


def _checked(row: dict[str, Any], where: str, error: type[EptxError]) -> dict[str, Any]:
    for key in ("text_pair", "task"):
        if row.get(key) is None:
            row.pop(key, None)
        elif not isinstance(row[key], str):
            raise error(f"{where}: {key!r} must be a string")
    return row
