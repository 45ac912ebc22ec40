"""Answers in server-sent events, and clients that do not wait for theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse


async def answer_in_events(request: Request, events: AsyncGenerator[bytes, None]) -> Response:
    """A response of some events. It begins when the first is there: what is wrong with a request is no event.

    Raises:
        ClientDisconnect: the client has gone before the first event.
    """
    with cancelled_if_gone(request):
        first = await anext(events)
    headers = {"Cache-Control": "no-store"}
    return StreamingResponse(_joined(first, events), media_type="text/event-stream", headers=headers)


@contextmanager
def cancelled_if_gone(request: Request) -> Iterator[None]:
    """Ends the block with `ClientDisconnect` as soon as the client has gone."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise ClientDisconnect from None
    finally:
        watcher.cancel()


async def _joined(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield first
        async for event in rest:
            yield event
