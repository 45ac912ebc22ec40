"""Reads a request's body, within limits on its size, its time and its type."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.requests import Request

from eptx.runtime.serving.errors import Refused
from eptx.runtime.serving.limits import Limits

_TYPES = ("application/json", "application/octet-stream")
#: After a refusal the rest of the body is read, at most so many times the limit and so many seconds: a client that
#: cannot finish sending would not see the answer.
_DRAINED, _PATIENCE = 4, 2.0
#: How many bodies of the largest size a server holds at once.
_MOST_BODIES = 16
_CLOSE = {"Connection": "close"}


class BodyReader:
    """Reads the bodies of a server's requests.

    Args:
        limits: of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """A block with the bytes of a request's body, which count as held until the block ends.

        Raises:
            Refused: 413, it is too large; 415, it is of another type or compressed; 408, it comes too slowly; 503,
                all bodies together are too large.
        """
        _check_type(request)
        data = bytearray()
        try:
            await self._receive(request, data)
            yield bytes(data)
        finally:
            self._held -= len(data)

    async def _receive(self, request: Request, data: bytearray) -> None:
        limits, chunks = self._limits, request.stream()
        if int(request.headers.get("content-length", "0")) > limits.max_body:
            if "expect" not in request.headers:
                await _drain(chunks, limits)
            raise _too_large(limits)
        try:
            async with asyncio.timeout(limits.read_timeout):
                async for chunk in chunks:
                    self._keep(data, chunk)
                    if len(data) > limits.max_body:
                        break
        except TimeoutError:
            raise Refused(408, f"the body did not come within {limits.read_timeout:g} seconds", _CLOSE) from None
        if len(data) > limits.max_body:
            await _drain(chunks, limits)
            raise _too_large(limits)

    def _keep(self, data: bytearray, more: bytes) -> None:
        if self._held + len(more) > _MOST_BODIES * self._limits.max_body:
            raise Refused(
                503, "the server holds too many large requests; try again later", _CLOSE | {"Retry-After": "1"}
            )
        data += more
        self._held += len(more)


def _check_type(request: Request) -> None:
    """A browser sends other types to any address without asking, so they are not read as JSON."""
    kind = request.headers.get("content-type", _TYPES[0]).partition(";")[0].strip().lower()
    if kind not in _TYPES:
        raise Refused(
            415, f"content-type {kind[:60]!r}: send application/json, or application/octet-stream with tensors"
        )
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise Refused(415, f"content-encoding {encoding[:60]!r} is not supported; send the body as it is")


async def _drain(chunks: AsyncIterator[bytes], limits: Limits) -> None:
    """Reads and forgets the rest of a body, if it is short."""
    left = _DRAINED * limits.max_body
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            async for chunk in chunks:
                left -= len(chunk)
                if left <= 0:
                    return


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"the body is larger than {limits.max_body} bytes", _CLOSE)
