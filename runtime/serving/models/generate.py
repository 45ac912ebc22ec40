"""Answers of language models, whole or as they come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from eptx.errors import RequestError
from eptx.files.strict_json import parse_json
from eptx.runtime.generation.outputs import Piece
from eptx.runtime.serving.batching.collate import depends_on_neighbours
from eptx.runtime.serving.batching.prompt_batcher import PromptBatcher
from eptx.runtime.serving.batching.prompt_job import BatchWriter, PromptJob
from eptx.runtime.serving.errors import Overdue, refusal
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.protocol.parameters import read_flag, read_timeout, until
from eptx.runtime.session import Session

#: Parameters of a request, and what `Session.stream` calls them.
_SETTINGS = {
    "max_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
    "add_special_tokens": "add_special_tokens",
}
_OTHER = ("task", "timeout", "stream")
#: Longer texts are tokenized in a thread of their own.
_LARGE = 4 << 10
#: Larger bodies are read in one, too.
_LARGE_BODY = 64 << 10


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
    parameters = {} if request.get("parameters") is None else request["parameters"]
    if not isinstance(parameters, dict):
        raise RequestError("parameters must be a JSON object")
    for name in parameters:
        if name not in _SETTINGS and name not in _OTHER:
            raise RequestError(f"no parameter {name[:60]!r}; there are {', '.join((*_SETTINGS, *_OTHER))}")
    for what, value in (("id", request.get("id")), ("the parameter task", parameters.get("task"))):
        if value is not None and not isinstance(value, str):
            raise RequestError(f"{what} must be a text, it is {type(value).__name__}")
    read_flag(parameters, "stream", "the request")  # it is the path that says so
    settings = {_SETTINGS[n]: v for n, v in parameters.items() if n in _SETTINGS and v is not None}
    return Prompt(request["text_input"], parameters.get("task"), settings, request.get("id"), read_timeout(parameters))


class Writing:
    """Writes a model's answers; prompts that wait are answered in one batch, whatever their tasks.

    Args:
        name: the model's.
        session: that writes; one that does not generate refuses.
        limits: of the server.
        metrics: that count.
    """

    def __init__(self, name: str, session: Session, limits: Limits, metrics: Metrics) -> None:
        self._name, self._writer, manifest = name, session._writer, session.manifest
        self._limits = limits
        self._alone = depends_on_neighbours(manifest)
        self._batcher: PromptBatcher | None = None
        if manifest.generation is not None:
            _warm(session)
            self._batcher = PromptBatcher(name, manifest, limits, metrics, BatchWriter(name, session, metrics))

    async def whole(self, body: bytes, deadline: float) -> bytes:
        """The answer to a request, as JSON."""
        prompt = await _read(body)
        async with aclosing(self._pieces(prompt, deadline)) as pieces:
            made = [piece async for piece in pieces]
        text = "".join(piece.text for piece in made)
        return self._encoded(prompt, text, made[-1].finish_reason, len(made))

    async def events(self, body: bytes, deadline: float) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events, one for each token; an error after the first is an event too.

        Raises:
            RequestError, Refused: before the first event.
        """
        prompt = await _read(body)
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
        """Answers what waits, and lets the threads go."""
        if self._batcher is not None:
            self._batcher.close()

    async def _pieces(self, prompt: Prompt, deadline: float) -> AsyncGenerator[Piece, None]:
        if self._batcher is None:
            raise RequestError("this bundle does not generate text; send it to infer")
        deadline = until(deadline, prompt.timeout)
        came = asyncio.Queue[Piece | Exception]()
        job = await self._job(prompt, came)
        self._batcher.submit(job)
        try:
            ended = False
            while not ended:
                item = await _within(came.get(), deadline)
                if isinstance(item, Exception):
                    raise item
                ended = item.finish_reason is not None
                yield item
        finally:
            self._batcher.drop(job)  # the client has gone, or the answer is whole

    async def _job(self, prompt: Prompt, came: asyncio.Queue[Piece | Exception]) -> PromptJob:
        """The prompt checked, alone, so that what is wrong with it is its own matter."""
        self._limits.check_text(len(prompt.text))
        check = partial(self._writer.check, prompt.text, prompt.task, **prompt.settings)
        request = check() if len(prompt.text) <= _LARGE else await asyncio.to_thread(check)
        loop = asyncio.get_running_loop()

        def give(item: Piece | Exception) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(came.put_nowait, item)

        alone = self._alone or request.settings.seed is not None  # one seed serves all rows of a batch
        return PromptJob(request, None if alone else replace(request.settings, max_new_tokens=1), give)

    def _encoded(self, prompt: Prompt, text: str, reason: str | None, count: int) -> bytes:
        answer: dict[str, Any] = {"model_name": self._name, "model_version": "1", "text_output": text}
        if prompt.id is not None:
            answer["id"] = prompt.id
        if reason is not None:
            answer["details"] = {"finish_reason": reason, "tokens": count}
        return json.dumps(answer, separators=(",", ":")).encode()


async def _read(body: bytes) -> Prompt:
    return parse_prompt(body) if len(body) <= _LARGE_BODY else await asyncio.to_thread(parse_prompt, body)


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
