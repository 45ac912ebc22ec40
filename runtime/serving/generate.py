"""Answers of language models, whole or as they come."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from eptx._json import parse_json
from eptx.errors import RequestError
from eptx.runtime.generation.outputs import Piece, Stream
from eptx.runtime.serving.errors import Overdue, Refused, refusal
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.session import Session

#: Parameters of a request, and what `Session.stream` calls them.
_SETTINGS = {
    "max_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
}
_OTHER = ("task", "timeout", "stream")


@dataclass(frozen=True)
class Prompt:
    """One request for an answer.

    Attributes:
        text: the prompt.
        task: its task, or None for the bundle's default.
        settings: as `Session.stream` takes them.
        id: what the client calls it, or None.
        timeout: microseconds that the client allows, or None.
    """

    text: str
    task: str | None
    settings: Mapping[str, Any]
    id: str | None
    timeout: int | None


def parse_prompt(body: bytes) -> Prompt:
    """Reads ``{"text_input": ..., "parameters": {...}}``.

    Raises:
        RequestError: the body is something else, or has a parameter that does not exist.
    """
    request = parse_json(body, what="the request", error=RequestError)
    if not isinstance(request, dict) or not isinstance(request.get("text_input"), str):
        raise RequestError("the request must be a JSON object with a text_input")
    parameters = request.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise RequestError("parameters must be a JSON object")
    for name in parameters:
        if name not in _SETTINGS and name not in _OTHER:
            raise RequestError(f"no parameter {name[:60]!r}; there are {', '.join((*_SETTINGS, *_OTHER))}")
    for what, value in (("id", request.get("id")), ("the parameter task", parameters.get("task"))):
        if value is not None and not isinstance(value, str):
            raise RequestError(f"{what} must be a text, it is {type(value).__name__}")
    timeout = parameters.get("timeout")
    if timeout is not None and (type(timeout) is not int or timeout < 0):
        raise RequestError("the parameter timeout must be a number of microseconds")
    settings = {_SETTINGS[n]: v for n, v in parameters.items() if n in _SETTINGS and v is not None}
    return Prompt(request["text_input"], parameters.get("task"), settings, request.get("id"), timeout)


class Writing:
    """Writes a model's answers, each in a thread of its own, a few at once.

    Args:
        name: the model's.
        session: that writes; one that does not generate refuses.
        limits: of the server.
        metrics: that count.
    """

    def __init__(self, name: str, session: Session, limits: Limits, metrics: Metrics) -> None:
        self._name, self._session, self._limits, self._metrics = name, session, limits, metrics
        self._open = 0
        self._threads: ThreadPoolExecutor | None = None
        if session.manifest.generation is not None:
            _warm(session)
            self._threads = ThreadPoolExecutor(limits.generations, thread_name_prefix=f"eptx {name} writes")

    async def whole(self, body: bytes, deadline: float) -> bytes:
        """The answer to a request, as JSON."""
        prompt = parse_prompt(body)
        async with aclosing(self._pieces(prompt, deadline)) as pieces:
            made = [piece async for piece in pieces]
        text = "".join(piece.text for piece in made)
        return self._encoded(prompt, text, made[-1].finish_reason if made else "length", len(made))

    async def events(self, body: bytes, deadline: float) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events, one for each token; an error after the first is an event too.

        Raises:
            RequestError, Refused: before the first event.
        """
        prompt = parse_prompt(body)
        count = 0
        try:
            async with aclosing(self._pieces(prompt, deadline)) as pieces:
                async for piece in pieces:
                    count += 1
                    yield b"data: %b\n\n" % self._encoded(prompt, piece.text, piece.finish_reason, count)
        except Exception as error:
            if not count:
                raise
            yield b"data: %b\n\n" % json.dumps({"error": refusal(error).message}).encode()

    def close(self) -> None:
        """Lets the threads go."""
        if self._threads is not None:
            self._threads.shutdown()

    async def _pieces(self, prompt: Prompt, deadline: float) -> AsyncGenerator[Piece, None]:
        if self._threads is None:
            raise RequestError("this bundle does not generate text; send it to infer")
        if self._open >= self._limits.generations + self._limits.queue:
            raise Refused(429, f"the queue is full: {self._open} prompts wait", {"Retry-After": "1"})
        if prompt.timeout:
            deadline = min(deadline, time.monotonic() + prompt.timeout / 1e6)
        loop, came = asyncio.get_running_loop(), asyncio.Queue[Piece | Exception | None]()
        stop = threading.Event()

        def give(item: Piece | Exception | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(came.put_nowait, item)

        self._open += 1
        self._threads.submit(self._write, prompt, give, stop)
        try:
            while (item := await _within(came.get(), deadline)) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            stop.set()  # the client has gone, or the answer is whole
            self._open -= 1

    def _write(self, prompt: Prompt, give: Callable[[Piece | Exception | None], None], stop: threading.Event) -> None:
        count = 0
        try:
            if stop.is_set():
                return
            stream = self._session.stream(prompt.text, prompt.task, **prompt.settings)
            try:
                for piece in stream:
                    if stop.is_set():
                        break
                    count += 1
                    give(piece)
            finally:
                stream.close()
            self._metrics.generated(self._name, _task(stream), self._session.provider, count)
            give(None)
        except Exception as error:
            give(error)

    def _encoded(self, prompt: Prompt, text: str, reason: str | None, count: int) -> bytes:
        answer: dict[str, Any] = {"model_name": self._name, "model_version": "1", "text_output": text}
        if prompt.id is not None:
            answer["id"] = prompt.id
        if reason is not None:
            answer["details"] = {"finish_reason": reason, "tokens": count}
        return json.dumps(answer, separators=(",", ":")).encode()


def _task(stream: Stream) -> str:
    return stream.tasks[0]


async def _within(value: Any, deadline: float) -> Any:
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            return await value
    except TimeoutError:
        raise Overdue() from None


def _warm(session: Session) -> None:
    """Opens the model now: its files may be replaced later."""
    generation = session.manifest.generation
    assert generation is not None
    token = next(i for i in range(3) if i not in (generation.pad, *generation.eos[:1]))
    session.generate([[token]], session.tasks[0], max_new_tokens=1)
