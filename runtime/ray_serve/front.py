"""The HTTP side of an application: the paths and answers of `eptx serve`, over replicas."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import prometheus_client
from ray import serve
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator
from starlette.types import ASGIApp

from eptx.runtime.ray_serve.retry import DIED, ask_replicas
from eptx.runtime.ray_serve.settings import Settings
from eptx.runtime.serving.errors import Refused, find_model
from eptx.runtime.serving.http.app import create_app
from eptx.runtime.serving.http.auth import read_tokens
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.protocol.openai.embeddings import EmbeddingRequest
from eptx.runtime.serving.protocol.openai.errors import error_object
from eptx.runtime.serving.protocol.openai.request import CompletionRequest

_GONE = "the replica that wrote this has gone; ask again"
#: Seconds that all replicas may take to load a bundle again.
_RELOAD = 300.0


@serve.ingress()
class Front:
    """Takes requests as `eptx serve` does, and lets replicas answer them.

    Args:
        settings: of the application.
        bundles: the replicas.
    """

    def __init__(self, settings: Settings, bundles: DeploymentHandle[Any]) -> None:
        self._settings, self._bundles = settings, bundles

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The application of `eptx serve`, over replicas."""
        settings = self._settings
        tokens = read_tokens(settings.token_file) if settings.token_file is not None else ()
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        return create_app(RemoteRegistry(settings, self._bundles), Metrics(), settings.limits, tokens)


#: The deployment, the ingress of an application.
FrontDeployment = serve.deployment(Front)


class RemoteRegistry:
    """A `Registry` of bundles that replicas hold.

    Attributes:
        ready: always true; Serve sends no request before there is a replica, or after it began to stop this process.
    """

    ready = True

    def __init__(self, settings: Settings, bundles: DeploymentHandle[Any]) -> None:
        self._bundles = bundles
        self._models = {
            name: RemoteModel(name, bundles, settings.limits.timeout, multiplexed=settings.multiplexed)
            for name in settings.bundles
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names."""
        return tuple(self._models)

    @contextmanager
    def use(self, name: str, version: str | None = None) -> Iterator[RemoteModel]:
        """See `Registry.use`."""
        yield find_model(self._models, name, version)

    async def reload(self, name: str) -> str | None:
        """Every replica that holds a bundle loads it again; see `Registry.reload`."""
        answers = await self._bundles.broadcast("reload", name).results_async(timeout_s=_RELOAD)
        return next((answer for answer in answers if answer is not None), None)


class RemoteModel:
    """A `Model` whose calls replicas answer.

    Args:
        name: the model's.
        bundles: the replicas.
        timeout: seconds for a request without a deadline.
        multiplexed: whether to look for a replica that holds the model.
    """

    def __init__(self, name: str, bundles: DeploymentHandle[Any], timeout: float, *, multiplexed: bool) -> None:
        self._name, self._timeout = name, timeout
        self._handle = bundles.options(multiplexed_model_id=name) if multiplexed else bundles
        self._streaming = self._handle.options(stream=True)

    async def infer(self, body: bytes, header_length: str | None, deadline: float) -> tuple[bytes, int | None]:
        """See `Model.infer`."""
        return cast("tuple[bytes, int | None]", await self._ask("infer", deadline, body, header_length))

    async def embed(self, request: EmbeddingRequest, task: str | None, deadline: float) -> bytes:
        """See `Model.embed`."""
        return cast(bytes, await self._ask("embed", deadline, request, task))

    async def generate(self, body: bytes, deadline: float) -> bytes:
        """See `Model.generate`."""
        return cast(bytes, await self._ask("generate", deadline, body))

    async def complete(self, request: CompletionRequest, deadline: float) -> bytes:
        """See `Model.complete`."""
        return cast(bytes, await self._ask("complete", deadline, request))

    async def metadata(self) -> dict[str, Any]:
        """See `Model.metadata`."""
        return cast("dict[str, Any]", await self._ask("metadata", time.monotonic() + self._timeout))

    def generate_stream(self, body: bytes, deadline: float) -> AsyncGenerator[bytes, None]:
        """See `Model.generate_stream`; if a replica dies after the first event, the last event is an error."""
        return self._events("generate_stream", body, deadline, {"error": _GONE})

    def complete_stream(self, request: CompletionRequest, deadline: float) -> AsyncGenerator[bytes, None]:
        """See `Model.complete_stream`; a replica that dies is an error as in `generate_stream`."""
        return self._events("complete_stream", request, deadline, error_object(Refused(503, _GONE)))

    async def _events(
        self, method: str, request: bytes | CompletionRequest, deadline: float, gone: dict[str, Any]
    ) -> AsyncGenerator[bytes, None]:
        async def begin(seconds: float) -> tuple[bytes, DeploymentResponseGenerator[Any]]:
            response = getattr(self._streaming, method).remote(self._name, seconds, request)
            return await _or_cancelled(response, anext(response)), response

        first, response = await ask_replicas(begin, deadline)
        yield first
        try:
            async for event in response:
                yield event
        except DIED:
            yield b"data: %b\n\n" % json.dumps(gone).encode()
        finally:
            response.cancel()

    async def _ask(self, method: str, deadline: float, *args: Any) -> Any:
        async def once(seconds: float) -> Any:
            response = getattr(self._handle, method).remote(self._name, seconds, *args)
            return await _or_cancelled(response, response)

        return await ask_replicas(once, deadline)


async def _or_cancelled(response: Any, answer: Awaitable[Any]) -> Any:
    """A replica's answer; if the caller no longer waits, the replica is told to stop."""
    try:
        value = await answer
    except asyncio.CancelledError:
        response.cancel()
        raise
    if isinstance(value, Refused):
        raise value
    return value
