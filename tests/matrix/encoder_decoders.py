"""Encoder-decoders."""

from __future__ import annotations

from tests.matrix.row import Row

ROWS: tuple[Row, ...] = ()
