"""One HTTP connection: uvicorn's, with limits on the size and the time of a request's head, and errors as JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from eptx.runtime.serving.http.auth import HEALTH
from eptx.runtime.serving.limits import Limits

_MOST_HEADERS = 128
#: Seconds for the head of a request on a connection above the limit.
_PATIENCE = 1.0
#: Seconds after a client has closed its side at which an interim answer tests whether it is still there.
_ASKED = (0.25, 0.5)
_ARE_YOU_THERE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _RefusedError(Exception):
    """Ends the parsing of a head that is refused."""


class Connection(HttpToolsProtocol):
    """Refuses heads that are too large (431), come too slowly (408), or are not HTTP (400), and requests on more
    connections than the limit (503).

    A client that has sent its request may close its side of the connection, and gets its answer. A client that has gone
    looks the same, until something is sent to it and its system reports an error. So if the answer takes a while, the
    server sends HTTP/1.1 clients an interim answer, which they skip; the second one fails if the client has gone.
    """

    limits: ClassVar[Limits] = Limits()
    _timer: asyncio.TimerHandle | None = None
    _size = 0  # bytes of the head's names and values so far
    _fed = 0  # bytes since the last complete request
    _in_head = True
    _is_extra = False  # above the limit of connections: its requests are refused
    _refused: tuple[int, str] | None = None
    _is_ended = False  # the client has closed its side
    _asking: Sequence[asyncio.TimerHandle] = ()

    @classmethod
    def within(cls, limits: Limits) -> type[Connection]:
        """The class for a server of these limits."""
        return type("Connection", (cls,), {"limits": limits})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts to wait for a request."""
        super().connection_made(transport)
        self._is_extra = len(self.connections) > self.limits.max_connections
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops waiting."""
        self._disarm()
        self._stop_asking()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on, unless a head is too large."""
        self._fed += len(data)
        super().data_received(data)
        if self.transport.is_closing() or not self._in_head:
            return
        if self._fed > self.limits.max_header:
            self._refuse(431, self._too_large())
        elif self._is_answered():
            self._arm()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client has closed its side: whether the connection stays open for an answer."""
        if not self._in_head or self._is_answered() or self.scheme == "https":  # TLS ends both sides
            return False
        if not self._is_ended:
            self._is_ended = True
            self._asking = [self.loop.call_later(seconds, self._ask) for seconds in _ASKED]
        return True

    def on_response_complete(self) -> None:
        """An answer is complete; after the last one the connection ends if the client has closed its side."""
        is_last = self._is_ended and not self.pipeline
        super().on_response_complete()
        if is_last:
            self.transport.close()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._size, self._in_head = 0, True
        self._arm()

    def on_url(self, url: bytes) -> None:
        """A part of the request's line came."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is complete."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)
        if len(self.headers) > _MOST_HEADERS:
            self._refused = 431, f"the request has more than {_MOST_HEADERS} headers"
            raise _RefusedError

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._disarm()
        if self._is_extra and self.url.decode("latin-1") not in HEALTH:
            self._refused = 503, f"the server has {self.limits.max_connections} connections; try again later"
            raise _RefusedError
        if self.parser.should_upgrade() and self.parser.get_method() == b"POST":  # httptools drops its body
            self._refused = 400, "this server does not upgrade connections; leave out the header Upgrade (use HTTP/1.1)"
            raise _RefusedError
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is complete; the next head may follow."""
        self._in_head, self._fed = True, 0
        super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Ends a connection that is idle, or whose client does not read its answer."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Refuses what the parser does not read."""
        self._refuse(*(self._refused or (400, "this is not an HTTP request that can be read")))

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self.limits.max_header:
            self._refused = 431, self._too_large()
            raise _RefusedError

    def _too_large(self) -> str:
        return f"the request's line and headers are larger than {self.limits.max_header} bytes"

    def _refuse(self, status: int, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        if self._is_answered() or self._is_reading():  # else another request's answer comes first
            self.transport.write(head.encode() + body)
        self.transport.close()

    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _is_reading(self) -> bool:
        """Whether a body is being read and its answer has not begun."""
        return not (self._in_head or self.pipeline or self.cycle.response_started)

    def _patience(self) -> float:
        return _PATIENCE if self._is_extra else self.limits.read_timeout

    def _ask(self) -> None:
        """Sends an interim answer, unless the answer itself has begun, which shows whether the client has gone."""
        begun = self.pipeline or self._is_answered() or self.cycle.response_started
        if self.scope["http_version"] == "1.1" and not begun:
            self.transport.write(_ARE_YOU_THERE)

    def _stop_asking(self) -> None:
        for timer in self._asking:
            timer.cancel()

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._patience(), self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self._refuse(408, f"the request's headers did not come within {self._patience():g} seconds")
