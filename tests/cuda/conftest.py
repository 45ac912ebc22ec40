"""Tests here export models of few structures in many ways."""

from __future__ import annotations

from tests.support.kept_traces import traces_are_kept

__all__ = ["traces_are_kept"]
