"""The whole matrix: its rows, the rows that settings are tried on, and docs/supported.md."""

from __future__ import annotations

from tests.matrix import audio, decoders, encoder_decoders, encoders, vision
from tests.matrix.row import Row

ROWS: tuple[Row, ...] = (*encoders.ROWS, *vision.ROWS, *audio.ROWS, *decoders.ROWS, *encoder_decoders.ROWS)
#: The rows that every setting is tried on.
OF_SETTINGS = ("BERT, sequence classification", "Llama")


def row(name: str) -> Row:
    """The row of a name."""
    return next(row for row in ROWS if row.name == name)
