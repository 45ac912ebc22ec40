"""Which of the waiting requests run together."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from eptx.runtime.serving.limits import Limits

#: This share of a run's tokens may be padding; or as many tokens as one more run would cost.
_PADDING = 0.1
#: A run of this many times its overhead gains nothing by more tokens; they only make it late.
_ENOUGH = 64
#: So many waiting requests are looked at; sorting more of them costs more than it gains.
_WINDOW = 256


class Waiting(Protocol):
    """What the scheduler knows of a request.

    Attributes:
        rows: how many.
        length: tokens of each row, padding included.
        batch_key: requests of equal keys may share a run; None: the request runs alone.
    """

    rows: int
    length: int
    batch_key: Hashable | None


W = TypeVar("W", bound=Waiting)


def next_batch(waiting: Iterable[W], limits: Limits, overhead: int) -> list[W]:
    """The oldest request, so that none starves, and those whose lengths are nearest to its own.

    Rows are padded to the longest of a run. A row that is much longer than the others would slow all of them down, so
    it waits until it is the oldest.

    Args:
        waiting: the oldest first; at least one.
        limits: of one run.
        overhead: of a run, in tokens (see `run_overhead`).

    Returns:
        In the order of arrival.
    """
    first, *others = islice(waiting, _WINDOW)
    if first.batch_key is None:
        return [first]
    chosen, most = {id(first)}, min(limits.max_tokens, _ENOUGH * overhead)
    rows, longest, tokens = first.rows, first.length, first.rows * first.length
    for other in _nearest(first, others):
        area = (rows + other.rows) * max(longest, other.length)
        used = tokens + other.rows * other.length
        if rows + other.rows <= limits.max_batch and area <= most and area - used <= max(overhead, _PADDING * area):
            chosen.add(id(other))
            rows, longest, tokens = rows + other.rows, max(longest, other.length), used
            if rows == limits.max_batch:
                break
    return [request for request in (first, *others) if id(request) in chosen]


def _nearest(first: W, others: Sequence[W]) -> list[W]:
    alike = [other for other in others if other.batch_key == first.batch_key]
    return sorted(alike, key=lambda other: abs(other.length - first.length))
