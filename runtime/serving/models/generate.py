"""Answers prompts, as a whole or in events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from eptx.runtime.generation.outputs import Piece
from eptx.runtime.serving.deadline import earlier
from eptx.runtime.serving.errors import VERSION, refusal
from eptx.runtime.serving.models.prompts import PromptService
from eptx.runtime.serving.protocol.generate import Prompt, parse_prompt
from eptx.runtime.session import Session

#: Longer texts are tokenized in a thread of their own.
_LARGE = 4 << 10
#: Larger bodies are read in one, too.
_LARGE_BODY = 64 << 10


class GenerateService:
    """Answers one model's requests of the protocol's generate extension.

    Args:
        name: the model's.
        session: that generates.
        prompts: that answers.
    """

    def __init__(self, name: str, session: Session, prompts: PromptService) -> None:
        self._name, self._session, self._prompts = name, session, prompts

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

    async def _pieces(self, prompt: Prompt, deadline: float) -> AsyncGenerator[Piece, None]:
        deadline = earlier(deadline, prompt.timeout)
        is_text = isinstance(prompt.prompt, str)
        characters = len(prompt.prompt) if is_text else 0  # arrays are bounded by the body's size
        check = partial(self._session.check_prompts, prompt.prompt, prompt.task, **prompt.options)
        request = await self._prompts.check(check, characters, threaded=characters > _LARGE or not is_text)
        async with aclosing(self._prompts.pieces(request, deadline)) as pieces:
            async for piece in pieces:
                yield piece

    def _encode(self, prompt: Prompt, text: str, reason: str | None, count: int) -> bytes:
        answer: dict[str, Any] = {"model_name": self._name, "model_version": VERSION, "text_output": text}
        if prompt.id is not None:
            answer["id"] = prompt.id
        if reason is not None:
            answer["details"] = {"finish_reason": reason, "tokens": count}
        return json.dumps(answer, separators=(",", ":")).encode()


async def _read(body: bytes) -> Prompt:
    return parse_prompt(body) if len(body) <= _LARGE_BODY else await asyncio.to_thread(parse_prompt, body)
