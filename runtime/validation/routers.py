"""What the reference's routers choose, and what a bundle chose otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class ExpertTable:
    """The experts that one module's router chooses for every task.

    Attributes:
        experts: sorted expert ids [T, K].
        tied: bool [T], whether the last of them won by a tie.
        flipped: bool [T], whether a reference chooses others: rounding makes them win, or it is a tie.
    """

    experts: np.ndarray
    tied: np.ndarray
    flipped: np.ndarray


@dataclass(frozen=True)
class Decisions:
    """The decisions of one forward, as scores: the largest win.

    Attributes:
        scores: name of the decision -> [rows or 1, candidates].
        used: rows to infer: module -> the tasks it used [rows].
    """

    scores: dict[str, np.ndarray] = field(default_factory=dict)
    used: dict[str, np.ndarray] = field(default_factory=dict)


def wrong_rows(table: ExpertTable, ids: np.ndarray, chosen: np.ndarray) -> Sequence[int]:
    """Rows whose experts [rows, K] are not the reference's; rows without the adapter are left out."""
    named = (ids >= 0) & (ids < len(table.experts))
    if chosen.shape[1] != table.experts.shape[1]:  # more or fewer experts than the adapter's tasks use
        return [int(row) for row in np.flatnonzero(named)]
    expected = table.experts[np.where(named, ids, 0)]
    differs = (np.sort(chosen, axis=1) != expected).any(axis=1)
    return [int(row) for row in np.flatnonzero(named & differs)]
