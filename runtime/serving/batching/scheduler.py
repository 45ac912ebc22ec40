"""Which of the requests that wait go out together."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from eptx.runtime.serving.limits import Limits

#: Of the tokens of a run so much may be padding, or as many as another run would cost anyway.
_PADDING = 0.1
#: A run of so many times what it costs beside its tokens gains nothing by more of them; they only make it late.
_ENOUGH = 64
#: How far back one looks for company; sorting more costs more than it finds.
_LOOK = 256


class Load(Protocol):
    """What is known of a request: its rows, the tokens of each (padded), and with what it may share a run (None: with
    nothing)."""

    rows: int
    length: int
    kind: Hashable | None


L = TypeVar("L", bound=Load)


def pack(waiting: Iterable[L], limits: Limits, overhead: int) -> list[L]:
    """The oldest request, which so never starves, and those that fit it best in length.

    Rows are padded to the longest of a run, so a row that is much longer than the others would make all of them slow:
    it waits until it is the oldest.

    Args:
        waiting: from the oldest on; at least one.
        limits: of one run.
        overhead: what a run costs beside its tokens, in tokens (see `run_overhead`).

    Returns:
        In the order of arrival.
    """
    first, *others = islice(waiting, _LOOK)
    if first.kind is None:
        return [first]
    chosen, most = {id(first)}, min(limits.max_tokens, _ENOUGH * overhead)
    rows, longest, tokens = first.rows, first.length, first.rows * first.length
    for load in _nearest(first, others):
        area = (rows + load.rows) * max(longest, load.length)
        used = tokens + load.rows * load.length
        if rows + load.rows <= limits.max_batch and area <= most and area - used <= max(overhead, _PADDING * area):
            chosen.add(id(load))
            rows, longest, tokens = rows + load.rows, max(longest, load.length), used
            if rows == limits.max_batch:
                break
    return [load for load in (first, *others) if id(load) in chosen]


def _nearest(first: L, others: Sequence[L]) -> list[L]:
    alike = [load for load in others if load.kind == first.kind]
    return sorted(alike, key=lambda load: abs(load.length - first.length))
