"""Deadlines of requests, in `time.monotonic`'s seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eptx.runtime.serving.errors import Overdue


def earlier(deadline: float, timeout: int | None) -> float:
    """The server's own deadline, or the client's if it is sooner: ``timeout`` microseconds from now."""
    return deadline if timeout is None else min(deadline, time.monotonic() + timeout / 1e6)


@asynccontextmanager
async def within(deadline: float) -> AsyncIterator[None]:
    """A block that ends by the deadline.

    Raises:
        Refused: 504, it did not.
    """
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            yield
    except TimeoutError:
        raise Overdue() from None
