"""The rows that ``eptx run`` answers: from its arguments, a file, standard input, or who sits at the terminal.

A row is a text, a pair of texts, or the path of an image.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click

from eptx.errors import RequestError
from eptx.files.jsonl import check_row, read_rows
from eptx.files.safe_files import open_regular

Row = dict[str, Any]

#: The key of a row that is an image.
IMAGE = "image"
_PROMPT = "> "
_HINT = (
    "type {one} and press Enter; Ctrl-D ends. Or give {several} as arguments, in a file (--input), or through a pipe "
    "(eptx run --help)"
)
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}


@dataclass(frozen=True)
class Given:
    """What a call of ``eptx run`` has to answer.

    Attributes:
        texts: the arguments: texts, or paths of images.
        pairs: pairs of texts.
        file: jsonl, csv, or one of a text or path a line (``.txt``). Paths begin at its folder.
        task: of all rows; None: as a file says, or the bundle's default.
        key: what a row is: ``text`` or ``image``.
    """

    texts: Sequence[str] = ()
    pairs: Sequence[tuple[str, str]] = ()
    file: Path | None = None
    task: str | None = None
    key: str = "text"

    @property
    def typed(self) -> bool:
        """Whether somebody at a terminal has to type the texts."""
        return not (self.texts or self.pairs or self.file) and sys.stdin.isatty()

    def rows(self) -> Iterator[Row]:
        """Objects with ``text`` or ``image``, and ``text_pair`` and ``task`` where they have them.

        Raises:
            RequestError: the file, or standard input, holds something else.
        """
        if self.file is not None:
            for row in _rows_of(self.file, self.key):
                if self.key == IMAGE:
                    row[IMAGE] = str(self.file.parent / row[IMAGE])
                yield row if self.task is None else {**row, "task": self.task}
            return
        for one, other in self.pairs:
            yield {"text": one, "text_pair": other, "task": self.task}
        for text in self.texts if self.texts or self.pairs else self._lines():
            yield {self.key: text, "task": self.task}

    def _lines(self) -> Iterator[str]:
        if not self.typed:
            return lines_of_stdin()
        image = self.key == IMAGE
        one, several = ("the path of an image", "paths") if image else ("a text", "texts")
        click.echo(_HINT.format(one=one, several=several), err=True)
        return typed_lines()


def unescaped(text: str) -> str:
    r"""An argument in which ``\n``, ``\t`` and ``\\`` stand for a new line, a tab and a backslash."""
    return re.sub(r"\\([nt\\])", lambda found: _ESCAPES[found[1]], text)


def batches(rows: Iterator[Row], size: int, kind: Callable[[Row], Any]) -> Iterator[list[Row]]:
    """Rows in batches; those that differ in kind do not share one."""
    batch: list[Row] = []
    for row in rows:
        if batch and kind(batch[0]) != kind(row):
            yield batch
            batch = []
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def lines_of_stdin() -> Iterator[str]:
    """The texts of standard input, one a line.

    Raises:
        RequestError: a line is no text.
    """
    return _lines_of(sys.stdin.buffer, "standard input")


def typed_lines() -> Iterator[str]:
    """What is typed at the terminal, a line at a time, until Ctrl-D; empty lines do not count."""
    with suppress(ImportError):
        import readline  # noqa: F401  input() then edits its line, and remembers those before
    prompt = _PROMPT if sys.stdout.isatty() else ""
    while True:
        try:
            text = input(prompt)
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo("\nCtrl-D ends", err=True)
            continue
        if text.strip():
            yield text


def _rows_of(file: Path, key: str) -> Iterator[Row]:
    kind = file.suffix.lower()
    if kind == ".csv":
        yield from _rows_of_csv(file, key)
    elif kind == ".txt":
        with open_regular(file, error=RequestError) as lines:
            yield from ({key: text} for text in _lines_of(lines, file.name))
    else:
        yield from read_rows(file, error=RequestError, key=key)


def _lines_of(lines: BinaryIO, name: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise RequestError(f"{name}, line {number}: not UTF-8 text") from None


def _rows_of_csv(file: Path, key: str) -> Iterator[Row]:
    """The rows of a table with a header; an empty cell but that of ``key`` says nothing."""
    with open_regular(file, error=RequestError) as opened:
        reader = csv.DictReader(io.TextIOWrapper(opened, "utf-8-sig", newline=""), strict=True)
        try:
            if key not in (reader.fieldnames or ()):
                raise RequestError(f"{file.name}: its first line must name the columns, and {key!r} among them")
            for row in reader:
                where = f"{file.name}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise RequestError(f"{where}: has another number of columns than the first line")
                cells = {name: value for name, value in row.items() if value or name == key}
                yield check_row(cells, where, RequestError, key=key)
        except (csv.Error, UnicodeDecodeError) as error:
            what = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
            raise RequestError(f"{file.name}, line {reader.line_num + 1}: {what}") from None
