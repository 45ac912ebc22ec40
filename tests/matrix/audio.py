"""Models of sound."""

from __future__ import annotations

from tests.matrix.row import Row

ROWS: tuple[Row, ...] = ()
