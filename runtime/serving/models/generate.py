"""Answers prompts, as a whole or in events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from eptx.errors import RequestError
from eptx.manifest.names import TASK_ID
from eptx.runtime.generation.outputs import Piece
from eptx.runtime.generation.prompts import Prompts
from eptx.runtime.serving.batching.prompt_batcher import PromptBatcher
from eptx.runtime.serving.batching.prompt_job import BatchGenerator, PromptJob
from eptx.runtime.serving.deadline import earlier, within
from eptx.runtime.serving.errors import VERSION, refusal
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.protocol.generate import Prompt, parse_prompt
from eptx.runtime.session import Session

#: Longer texts are tokenized in a thread of their own.
_LARGE = 4 << 10
#: Larger bodies are read in one, too.
_LARGE_BODY = 64 << 10


class GenerateService:
    """Generates one model's answers; prompts that wait share a batch, whatever their tasks.

    Args:
        name: the model's.
        session: that generates. If its bundle does not generate, every request is refused.
        limits: of the server.
        metrics: that count.
    """

    def __init__(self, name: str, session: Session, limits: Limits, metrics: Metrics) -> None:
        self._name, self._session, self._limits, manifest = name, session, limits, session.manifest
        self._batcher: PromptBatcher | None = None
        if manifest.generation is not None:
            _warm_up(session)
            self._batcher = PromptBatcher(name, manifest, limits, metrics, BatchGenerator(name, session, metrics))

    async def generate(self, body: bytes, deadline: float) -> bytes:
        """See `Model.generate`."""
        prompt = await _read(body)
        async with aclosing(self._pieces(prompt, deadline)) as pieces:
            made = [piece async for piece in pieces]
        text = "".join(piece.text for piece in made)
        return self._encode(prompt, text, made[-1].finish_reason, len(made))

    async def generate_stream(self, body: bytes, deadline: float) -> AsyncGenerator[bytes, None]:
        """See `Model.generate_stream`."""
        prompt = await _read(body)
        count = 0
        try:
            async with aclosing(self._pieces(prompt, deadline)) as pieces:
                async for piece in pieces:
                    count += 1
                    yield b"data: %b\n\n" % self._encode(prompt, piece.text, piece.finish_reason, count)
        except Exception as error:
            if not count:
                raise
            yield b"data: %b\n\n" % json.dumps({"error": refusal(error).message}).encode()

    def close(self) -> None:
        """Answers the prompts that wait, and ends the threads."""
        if self._batcher is not None:
            self._batcher.close()

    async def _pieces(self, prompt: Prompt, deadline: float) -> AsyncGenerator[Piece, None]:
        if self._batcher is None:
            raise RequestError("this bundle does not generate text; send it to infer")
        deadline = earlier(deadline, prompt.timeout)
        came = asyncio.Queue[Piece | Exception]()
        job = await self._job(prompt, came)
        self._batcher.submit(job)
        try:
            ended = False
            while not ended:
                async with within(deadline):
                    item = await came.get()
                if isinstance(item, Exception):
                    raise item
                ended = item.finish_reason is not None
                yield item
        finally:
            self._batcher.drop(job)  # the client has gone, or the answer is complete

    async def _job(self, prompt: Prompt, came: asyncio.Queue[Piece | Exception]) -> PromptJob:
        """Checks the prompt before it shares a batch, so that only its own client sees an error."""
        length = len(prompt.prompt) if isinstance(prompt.prompt, str) else 0  # arrays are bounded by the body's size
        self._limits.check_text(length)
        check = partial(self._session.check_prompts, prompt.prompt, prompt.task, **prompt.options)
        large = length > _LARGE or not isinstance(prompt.prompt, str)
        request = await asyncio.to_thread(check) if large else check()
        loop = asyncio.get_running_loop()

        def send(item: Piece | Exception) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(came.put_nowait, item)

        alone = (
            self._session.manifest.rows_share_route or request.settings.seed is not None
        )  # one seed serves all rows of a batch
        return PromptJob(request, None if alone else replace(request.settings, max_new_tokens=1), send)

    def _encode(self, prompt: Prompt, text: str, reason: str | None, count: int) -> bytes:
        answer: dict[str, Any] = {"model_name": self._name, "model_version": VERSION, "text_output": text}
        if prompt.id is not None:
            answer["id"] = prompt.id
        if reason is not None:
            answer["details"] = {"finish_reason": reason, "tokens": count}
        return json.dumps(answer, separators=(",", ":")).encode()


async def _read(body: bytes) -> Prompt:
    return parse_prompt(body) if len(body) <= _LARGE_BODY else await asyncio.to_thread(parse_prompt, body)


def _warm_up(session: Session) -> None:
    """Opens the model now: its files may be replaced later."""
    generation = session.manifest.generation
    assert generation is not None
    encoder = session.manifest.encoder
    read = [spec for spec in encoder.inputs if spec.name != TASK_ID] if encoder is not None else []
    prompt: Prompts = [[next(i for i in range(3) if i not in (generation.pad, *generation.eos[:1]))]]
    if read and all(spec.name != "input_ids" for spec in read):
        prompt = {spec.name: np.zeros((1, *map(int, spec.shape[1:])), spec.dtype) for spec in read}
    session.generate(prompt, session.tasks[0], max_new_tokens=1)
