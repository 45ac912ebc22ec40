"""The paths that OpenAI's clients ask: models, chat completions, completions and embeddings."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from eptx.runtime.serving.errors import NO_MODEL, Refused
from eptx.runtime.serving.http.body import BodyReader
from eptx.runtime.serving.http.events import answer_in_events, cancelled_if_gone
from eptx.runtime.serving.interface import Registry
from eptx.runtime.serving.models.complete import model_names
from eptx.runtime.serving.protocol.openai.embeddings import parse_embeddings
from eptx.runtime.serving.protocol.openai.request import CompletionRequest, parse_chat, parse_text


class OpenAIPaths:
    """Answers these paths. Every task of a bundle is a model; so is the bundle, where a request needs no task.

    Args:
        registry: the bundles.
        bodies: reads the requests.
        deadline: gives a request's deadline.
    """

    def __init__(self, registry: Registry, bodies: BodyReader, deadline: Callable[[Request], float]) -> None:
        self._registry, self._bodies, self._deadline = registry, bodies, deadline
        self._created = int(time.time())

    async def models(self, request: Request) -> Response:
        """Lists the models."""
        listed = [self._object(model) for model in await self._models()]
        return JSONResponse({"object": "list", "data": listed})

    async def model(self, request: Request) -> Response:
        """One model."""
        wanted, known = request.path_params["model"], await self._models()
        if wanted not in known:
            raise Refused(404, f"no model {wanted[:120]!r}; GET /v1/models lists them", code=NO_MODEL, param="model")
        return JSONResponse(self._object(wanted))

    async def chat(self, request: Request) -> Response:
        """Answers a chat."""
        return await self._complete(request, parse_chat)

    async def text(self, request: Request) -> Response:
        """Answers a prompt."""
        return await self._complete(request, parse_text)

    async def embeddings(self, request: Request) -> Response:
        """Embeds texts."""
        async with self._bodies.read(request) as body:
            asked = parse_embeddings(body)
            name, task = asked.name_and_task(self._registry.names)
            request.state.model = name  # for the metrics
            with self._registry.use(name) as model, cancelled_if_gone(request):
                content = await model.embed(asked, task, self._deadline(request))
        return Response(content, media_type="application/json")

    async def _complete(self, request: Request, parse: Callable[[bytes], CompletionRequest]) -> Response:
        async with self._bodies.read(request) as body:
            asked = parse(body)
            request.state.model = asked.bundle  # for the metrics
            if asked.stream:
                return await answer_in_events(request, self._events(request, asked))
            with self._registry.use(asked.bundle) as model, cancelled_if_gone(request):
                content = await model.complete(asked, self._deadline(request))
        return Response(content, media_type="application/json")

    async def _events(self, request: Request, asked: CompletionRequest) -> AsyncGenerator[bytes, None]:
        with self._registry.use(asked.bundle) as model:
            async with aclosing(model.complete_stream(asked, self._deadline(request))) as events:
                async for event in events:
                    yield event

    async def _models(self) -> list[str]:
        models = []
        for name in self._registry.names:
            with self._registry.use(name) as model:
                models += model_names(name, await model.metadata())
        return models

    def _object(self, model: str) -> dict[str, Any]:
        return {"id": model, "object": "model", "created": self._created, "owned_by": "eptx"}
