"""Asks again when a process died before it had answered. Requests change nothing, so they may be asked twice."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eptx.runtime.serving.deadline import within
from eptx.runtime.serving.errors import Refused

_log = logging.getLogger("ray.serve")
#: Ray's exceptions for a process, or its machine, that ended before it had answered.
DIED = (RayActorError, ObjectLostError, WorkerCrashedError, NodeDiedError)
#: Seconds to wait before each attempt: the routers need a moment to learn which process has died. There are few
#: attempts, so that a request that kills its process does not kill them all.
_PAUSES = (0.0, 0.2, 0.2)
#: The paths whose requests the proxies repeat.
_PATHS = ("/infer", "/generate", "/generate_stream", "/completions", "/embeddings")

_T = TypeVar("_T")


async def ask_replicas(ask: Callable[[float], Awaitable[_T]], deadline: float) -> _T:
    """A replica's answer within the deadline; if a replica dies, another one is asked.

    Args:
        ask: asks a replica, given how many seconds are left.
        deadline: in `time.monotonic`'s seconds.

    Raises:
        Refused: 429, no replica has room; 503, replicas die, or there are none; 504, the deadline passed.
    """
    for pause in _PAUSES:
        await asyncio.sleep(pause)
        try:
            async with within(deadline):
                return await ask(deadline - time.monotonic())
        except BackPressureError:
            raise Refused(429, "all replicas' queues are full; try again later", {"Retry-After": "1"}) from None
        except DeploymentUnavailableError:
            raise Refused(503, "there is no replica that could answer", {"Retry-After": "5"}) from None
        except DIED as error:
            _log.warning("a replica died; its request goes to another one: %s", type(error).__name__)
    raise Refused(503, f"{len(_PAUSES)} replicas died over this request", {"Retry-After": "5"})


def proxy_middlewares() -> list[Middleware]:
    """For ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=eptx.runtime.ray_serve:proxy_middlewares``.

    If it is set where Ray is started, requests outlive the ``Front`` process that they went to. (They outlive a replica
    of ``Bundles`` without it.)
    """
    return [Middleware(RetryMiddleware)]


class RetryMiddleware:
    """In Serve's HTTP proxies: sends a request on again if it got no answer and its client still waits.

    Args:
        app: that answers, or ends without an answer when a process dies.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http" or not scope["path"].endswith(_PATHS):
            await self._app(scope, receive, send)
            return
        received: list[Message] = []
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            if await self._is_answered(scope, receive, send, received):
                return
            if any(message["type"] == "http.disconnect" for message in received):
                return

    async def _is_answered(self, scope: Scope, receive: Receive, send: Send, received: list[Message]) -> bool:
        """Whether an attempt began an answer; appends the messages that no attempt before it received."""
        again = iter(tuple(received))
        start: Message | None = None  # sent with the first part of the body: a process may die between the two
        began = False

        async def replay() -> Message:
            for message in again:
                return message
            received.append(await receive())
            return received[-1]

        async def forward(message: Message) -> None:
            nonlocal start, began
            if message["type"] == "http.response.start":
                start = message
                return
            if not began and start is not None:
                await send(start)
            began = True
            await send(message)

        await self._app(dict(scope), replay, forward)
        return began
