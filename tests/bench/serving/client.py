"""An HTTP client of many connections that costs little beside the server it measures."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field


class Line(asyncio.Protocol):
    """A connection that is kept, for one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._data = bytearray()

    @classmethod
    async def to(cls, port: int) -> Line:
        """A new connection to a server on this machine."""
        _, line = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return line

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Sends a request; its status and body come later, or ConnectionError."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def leave(self) -> None:
        """Breaks the connection, whatever is under way."""
        assert self._transport is not None
        self._answer = None
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps what to write to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails the request that waits."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Reads an answer, which has a content-length."""
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._data[:end]).lower()
        start, size = end + 4, int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(self._data) < start + size:
            return
        body = bytes(self._data[start : start + size])
        del self._data[: start + size]
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((int(head[9:12]), body))


@dataclass
class Answers:
    """What came back in one step of an open loop.

    Attributes:
        seconds: that requests were sent.
        latencies: of answers with status 200, from when they were due to be sent, in seconds.
        in_time: how many of these came while requests were sent.
        refused: answers of another status, by status.
        busy: the share of one processor that the client took.
    """

    seconds: float
    latencies: list[float] = field(default_factory=list)
    in_time: int = 0
    refused: dict[int, int] = field(default_factory=dict)
    busy: float = 0.0


class OpenLoop:
    """Sends requests when they are due, answered or not, on as many connections as that takes.

    Args:
        port: of a server on this machine.
        requests: that take turns.
    """

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._port, self._requests = port, requests
        self._free: list[Line] = []

    async def run(self, rate: float, seconds: float, seed: int) -> Answers:
        """Requests at random times (a Poisson process), so many a second on average; returns when all are answered."""
        due = random.Random(seed)
        answers = Answers(seconds)
        start, processor = time.perf_counter(), time.process_time()
        pending, at, turn = set(), 0.0, 0
        while (at := at + due.expovariate(rate)) < seconds:
            if (left := start + at - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            task = asyncio.create_task(
                self._one(self._requests[turn % len(self._requests)], start + at, start, answers)
            )
            pending.add(task)
            task.add_done_callback(pending.discard)
            turn += 1
        await asyncio.sleep(max(0.0, start + seconds - time.perf_counter()))
        answers.busy = (time.process_time() - processor) / (time.perf_counter() - start)
        await asyncio.gather(*pending)
        return answers

    async def burst(self, count: int) -> float:
        """So many requests at once; the seconds until all are answered."""
        lines = [self._free.pop() if self._free else await Line.to(self._port) for _ in range(count)]
        began = time.perf_counter()
        asked = [line.ask(self._requests[i % len(self._requests)]) for i, line in enumerate(lines)]
        answers = await asyncio.gather(*asked)
        seconds = time.perf_counter() - began
        self._free += lines
        assert all(status == 200 for status, _ in answers)
        return seconds

    async def _one(self, request: bytes, due: float, start: float, answers: Answers) -> None:
        line = self._free.pop() if self._free else await Line.to(self._port)
        status, _ = await line.ask(request)
        now = time.perf_counter()
        self._free.append(line)
        if status != 200:
            answers.refused[status] = answers.refused.get(status, 0) + 1
            return
        answers.latencies.append(now - due)
        answers.in_time += now - start <= answers.seconds
