"""Answers chat and text completions, as OpenAI's clients ask for them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from eptx.manifest.names import AUTO_TASK
from eptx.runtime.generation.request import GenerationRequest
from eptx.runtime.requests.tasks import TaskChooser
from eptx.runtime.serving.errors import NO_MODEL, Refused, refusal
from eptx.runtime.serving.models.prompts import PromptService
from eptx.runtime.serving.protocol.openai.answer import AnswerWriter
from eptx.runtime.serving.protocol.openai.errors import error_object
from eptx.runtime.serving.protocol.openai.request import SEPARATOR, CompletionRequest
from eptx.runtime.session import Session

#: Longer texts are tokenized in a thread of their own.
_LARGE = 4 << 10


def model_names(bundle: str, metadata: dict[str, Any]) -> list[str]:
    """The models that a bundle is: one for each task; and its own name, where a request without a task is answered.

    Args:
        bundle: its name.
        metadata: as `Model.metadata` gives it.
    """
    told = metadata["parameters"]
    if not told["generates"]:
        return []
    own = [bundle] if told["default_task"] is not None else []
    return [*own, *(f"{bundle}{SEPARATOR}{task}" for task in told["tasks"])]


class CompletionService:
    """Answers one model's completions.

    Args:
        name: the model's.
        session: that generates.
        prompts: that answers.
    """

    def __init__(self, name: str, session: Session, prompts: PromptService) -> None:
        self._name, self._session, self._prompts = name, session, prompts
        self._default = TaskChooser(session.manifest).default

    async def complete(self, request: CompletionRequest, deadline: float) -> bytes:
        """See `Model.complete`."""
        checked, writer = await self._begin(request)
        async with aclosing(self._prompts.pieces(checked, deadline)) as pieces:
            return writer.whole([piece async for piece in pieces])

    async def complete_stream(self, request: CompletionRequest, deadline: float) -> AsyncGenerator[bytes, None]:
        """See `Model.complete_stream`."""
        checked, writer = await self._begin(request)
        count = 0
        try:
            async with aclosing(self._prompts.pieces(checked, deadline)) as pieces:
                async for piece in pieces:
                    event = (b"" if count else writer.first()) + writer.event(piece)
                    count += 1
                    if event:
                        yield event
        except Exception as error:
            if not count:
                raise
            yield b"data: %b\n\n" % json.dumps(error_object(refusal(error))).encode()
            return
        yield writer.last(count)

    async def _begin(self, request: CompletionRequest) -> tuple[GenerationRequest, AnswerWriter]:
        task, session = self._task(request), self._session
        if request.messages is not None:
            check = partial(session.check_chat, request.messages, task, **request.options)
        else:
            prompt: Any = request.prompt if isinstance(request.prompt, str) else [request.prompt]
            check = partial(session.check_prompts, prompt, task, **request.options)
        characters = request.characters
        # a template is rendered in another process, for which the event loop must not wait
        threaded = request.messages is not None or characters > _LARGE or not isinstance(request.prompt, str)
        checked = await self._prompts.check(check, characters, threaded=threaded)
        return checked, AnswerWriter(request, len(checked.prompts[0]), self._token_text)

    def _task(self, request: CompletionRequest) -> str | None:
        """The task that the model's name says.

        Raises:
            Refused: 404, there is no such model.
        """
        if self._session.manifest.generation is None:
            raise Refused(404, f"the bundle {self._name} does not generate text", code=NO_MODEL, param="model")
        known = {*self._session.tasks, *((AUTO_TASK,) if self._default == AUTO_TASK else ())}
        task = request.task if request.task is not None else self._default
        if task in known:
            return task
        named = ", ".join(f"{self._name}{SEPARATOR}{task}" for task in self._session.tasks)
        raise Refused(404, f"no model {request.model[:120]!r}; there are {named}", code=NO_MODEL, param="model")

    def _token_text(self, token: int) -> str:
        return self._session.tokenizer.token_text(token) if self._has_tokenizer else ""

    @property
    def _has_tokenizer(self) -> bool:
        return self._session.bundle.file("tokenizer.json") is not None
