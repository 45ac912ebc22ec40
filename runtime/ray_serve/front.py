"""The HTTP side of an application: the paths and answers of `eptx serve`, with the replicas behind them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import prometheus_client
from ray import serve
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator
from starlette.types import ASGIApp

from eptx.runtime.ray_serve.replica import Refusal
from eptx.runtime.ray_serve.settings import Settings
from eptx.runtime.serving.errors import Overdue, Refused, no_model
from eptx.runtime.serving.http.app import create_app
from eptx.runtime.serving.http.auth import read_tokens
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.models.registry import Registry

_log = logging.getLogger("ray.serve")
#: Replicas that may die over one request; more would let a request that kills them take them all.
_ATTEMPTS = 3
#: Seconds until the next is asked: so long the routers may not know yet that one has died.
_PAUSE = 0.2
#: What Ray raises where a process, or its machine, went before it had answered.
_DIED = (RayActorError, ObjectLostError, WorkerCrashedError, NodeDiedError)
_RELOAD = 300.0

_T = TypeVar("_T")


@serve.ingress()
class Front:
    """Takes requests as `eptx serve` does, and has replicas answer them.

    An answer does not change what is asked next, so a request whose replica died goes to another one.

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
        registry = cast(Registry, RemoteRegistry(settings, self._bundles))  # it has all that the application calls
        return create_app(registry, Metrics(), settings.limits, tokens)


#: The deployment, the ingress of an application.
FrontDeployment = serve.deployment(Front)


class RemoteRegistry:
    """What `Registry` is to the application, for bundles that replicas hold.

    Attributes:
        ready: always; Serve sends nothing here before there is a replica, or after it began to stop this one.
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
        """A model.

        Raises:
            Refused: 404, there is none of that name and version.
        """
        model = self._models.get(name)
        if model is None or version not in (None, "1"):
            raise no_model(name, version, self._models)
        yield model

    async def reload(self, name: str) -> str | None:
        """Has every replica that holds a bundle load it again; why it failed, where it did."""
        answers = await self._bundles.broadcast("reload", name).results_async(timeout_s=_RELOAD)
        return next((answer for answer in answers if answer is not None), None)


class RemoteModel:
    """What `ServedModel` is to the application: each call is answered by a replica.

    Args:
        name: the model's.
        bundles: the replicas.
        timeout: seconds that a request may take which has no deadline.
        multiplexed: whether to look for a replica that holds the model.
    """

    def __init__(self, name: str, bundles: DeploymentHandle[Any], timeout: float, *, multiplexed: bool) -> None:
        self._name, self._timeout = name, timeout
        self._handle = bundles.options(multiplexed_model_id=name) if multiplexed else bundles
        self._streaming = self._handle.options(stream=True)
        self.writing = self  # the application asks it for what a language model writes

    async def infer(self, body: bytes, header_length: str | None, deadline: float) -> tuple[bytes, int | None]:
        """As `ServedModel.infer`."""
        answer: tuple[bytes, int | None] = await self._ask("infer", deadline, body, header_length)
        return answer

    async def whole(self, body: bytes, deadline: float) -> bytes:
        """As `Writing.whole`."""
        answer: bytes = await self._ask("whole", deadline, body)
        return answer

    async def metadata(self) -> dict[str, Any]:
        """As `ServedModel.metadata`."""
        answer: dict[str, Any] = await self._ask("metadata", time.monotonic() + self._timeout)
        return answer

    async def events(self, body: bytes, deadline: float) -> AsyncGenerator[bytes, None]:
        """As `Writing.events`; where a replica dies after the first event, the last one is an error."""

        async def begin(seconds: float) -> tuple[bytes, DeploymentResponseGenerator[Any]]:
            response = self._streaming.events.remote(self._name, seconds, body)
            return await _or_cancelled(response, anext(response)), response

        first, response = await _repeated(begin, deadline)
        yield first
        try:
            async for event in response:
                yield event
        except _DIED:
            yield b'data: {"error": "the replica that wrote this has gone; ask again"}\n\n'
        finally:
            response.cancel()

    async def _ask(self, method: str, deadline: float, *args: Any) -> Any:
        async def once(seconds: float) -> Any:
            response = getattr(self._handle, method).remote(self._name, seconds, *args)
            return await _or_cancelled(response, response)

        return await _repeated(once, deadline)


async def _or_cancelled(response: Any, answer: Awaitable[Any]) -> Any:
    """A replica's answer; a replica whose answer nobody waits for any more is told so."""
    try:
        value = await answer
    except asyncio.CancelledError:
        response.cancel()
        raise
    if isinstance(value, Refusal):
        raise Refused(value.status, value.message, value.headers)
    return value


async def _repeated(ask: Callable[[float], Awaitable[_T]], deadline: float) -> _T:
    """What replicas answer within the deadline; another one is asked when one dies.

    Raises:
        Refused: 429, no replica has room; 503, replicas die, or there are none; 504, the deadline passed.
    """
    for _ in range(_ATTEMPTS):
        left = deadline - time.monotonic()
        try:
            async with asyncio.timeout(left):
                return await ask(left)
        except TimeoutError:
            raise Overdue() from None
        except BackPressureError:
            raise Refused(429, "all replicas' queues are full; try again later", {"Retry-After": "1"}) from None
        except DeploymentUnavailableError:
            raise Refused(503, "there is no replica that could answer", {"Retry-After": "5"}) from None
        except _DIED as error:
            _log.warning("a replica died; its request goes to another one: %s", type(error).__name__)
            await asyncio.sleep(_PAUSE)
    raise Refused(503, f"{_ATTEMPTS} replicas died over this request", {"Retry-After": "5"})
