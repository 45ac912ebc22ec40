"""A replica: some bundles, each with the queue and the batches of `eptx serve`."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import ray
from ray import serve

from eptx.runtime.ray_serve.settings import Settings
from eptx.runtime.serving.errors import Refused, refusal
from eptx.runtime.serving.interface import Model
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.models.registry import LocalRegistry
from eptx.runtime.serving.protocol.openai.embeddings import EmbeddingRequest
from eptx.runtime.serving.protocol.openai.request import CompletionRequest
from eptx.runtime.session import Session

_log = logging.getLogger("ray.serve")
_T = TypeVar("_T")


class Bundles:
    """Answers for the bundles that it holds, and loads others when they are asked for.

    Requests wait in the queue of their bundle, and those of different tasks share a batch. A bundle that was replaced
    is loaded again, as `eptx serve` does. When Serve stops a replica, it answers the requests that it accepted within
    ``drain_timeout``.

    Args:
        settings: of the application.
    """

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Serve awaits it
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one text is not worth waking threads for
        self._settings = settings
        self._metrics = Metrics()
        self._threads = settings.threads or _cpus()
        self._models: dict[str, _Held] = {}

        async def load(name: str) -> _Held:
            return await self._load(name)

        # Ray keeps the most recently used, and tells the routers which replica has which
        self._held = serve.multiplexed(max_num_models_per_replica=settings.models_per_replica)(load)
        if not settings.multiplexed:
            for name in settings.bundles:  # a bundle that does not load fails now, not at its first request
                await self._held(name)

    async def infer(
        self, name: str, seconds: float, body: bytes, header_length: str | None
    ) -> tuple[bytes, int | None] | Refused:
        """Answers an inference request as `Model.infer` does, within ``seconds``."""
        return await self._answer(name, seconds, lambda model, until: model.infer(body, header_length, until))

    async def embed(self, name: str, seconds: float, request: EmbeddingRequest, task: str | None) -> bytes | Refused:
        """Answers a request for embeddings as `Model.embed` does."""
        return await self._answer(name, seconds, lambda model, until: model.embed(request, task, until))

    async def generate(self, name: str, seconds: float, body: bytes) -> bytes | Refused:
        """Answers a prompt as `Model.generate` does."""
        return await self._answer(name, seconds, lambda model, until: model.generate(body, until))

    async def metadata(self, name: str, seconds: float) -> dict[str, Any] | Refused:
        """See `Model.metadata`."""
        return await self._answer(name, seconds, lambda model, until: model.metadata())

    async def complete(self, name: str, seconds: float, request: CompletionRequest) -> bytes | Refused:
        """Answers a completion as `Model.complete` does."""
        return await self._answer(name, seconds, lambda model, until: model.complete(request, until))

    async def generate_stream(self, name: str, seconds: float, body: bytes) -> AsyncGenerator[bytes | Refused, None]:
        """Answers a prompt as `Model.generate_stream` does; a refusal comes first, and alone."""
        async for event in self._events(name, seconds, lambda model, until: model.generate_stream(body, until)):
            yield event

    async def complete_stream(
        self, name: str, seconds: float, request: CompletionRequest
    ) -> AsyncGenerator[bytes | Refused, None]:
        """Answers a completion as `Model.complete_stream` does; a refusal as in `generate_stream`."""
        async for event in self._events(name, seconds, lambda model, until: model.complete_stream(request, until)):
            yield event

    async def reload(self, name: str) -> str | None:
        """Loads a bundle again, if this replica holds it; why it failed."""
        held = self._models.get(name)
        return await held.registry.reload(name) if held is not None else None

    async def check_health(self) -> None:
        """Raises if a bundle that the replica holds does not answer; Serve then replaces the replica."""
        for name, held in self._models.items():
            if not held.registry.ready:
                raise RuntimeError(f"{name} does not answer")

    async def __del__(self) -> None:
        """Closes all bundles; Serve awaits it when all requests are answered."""
        await asyncio.gather(*(held.close() for held in tuple(self._models.values())))

    async def _answer(self, name: str, seconds: float, ask: Callable[[Model, float], Awaitable[_T]]) -> _T | Refused:
        until = time.monotonic() + seconds
        try:
            async with self._model(name) as model:
                return await ask(model, until)
        except Exception as error:
            return _logged(error)

    async def _events(
        self, name: str, seconds: float, ask: Callable[[Model, float], AsyncGenerator[bytes, None]]
    ) -> AsyncGenerator[bytes | Refused, None]:
        until = time.monotonic() + seconds
        try:
            async with self._model(name) as model, aclosing(ask(model, until)) as events:
                async for event in events:
                    yield event
        except Exception as error:
            yield _logged(error)

    @asynccontextmanager
    async def _model(self, name: str) -> AsyncIterator[Model]:
        """A block with a model, loaded if need be, and kept until the block ends."""
        held = await self._held(name)
        with held.registry.use(name) as model:  # nothing else runs between the two lines
            yield model

    async def _load(self, name: str) -> _Held:
        settings = self._settings
        open_session = partial(Session, provider=settings.provider, threads=self._threads)
        registry = LocalRegistry({name: settings.bundles[name]}, settings.limits, self._metrics, open_session)
        await registry.start()
        held = self._models[name] = _Held(registry, lambda: self._models.pop(name, None))
        return held


#: The deployment.
BundleDeployment = serve.deployment(Bundles)


class _Held:
    """A bundle in a replica: reloaded when it is replaced, and closed after its last request."""

    def __init__(self, registry: LocalRegistry, forget: Callable[[], object]) -> None:
        self.registry, self._forget = registry, forget
        self._watcher = asyncio.create_task(registry.watch())
        vars(self)["__del__"] = self.close  # Ray awaits it to make room; Python itself calls only a class's own

    async def close(self) -> None:
        """Answers the requests that were accepted, and closes the bundle."""
        self._forget()
        self._watcher.cancel()
        await self.registry.close()


def _cpus() -> int:
    return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))


def _logged(error: Exception) -> Refused:
    refused = refusal(error)
    if refused.status == 500:
        _log.error("request failed", exc_info=error)
    return refused
