"""In Serve's HTTP proxies: asks again for what a process that died had accepted."""

from __future__ import annotations

import asyncio

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: What a request asks for under these paths does not change anything, so it may be asked twice.
_PATHS = ("/infer", "/generate", "/generate_stream")
_ATTEMPTS = 3
#: Seconds until it is asked again: so long the proxy may not know yet which process has died.
_PAUSE = 0.2


def proxy_middlewares() -> list[Middleware]:
    """What ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=eptx.runtime.ray_serve:proxy_middlewares`` names.

    Set where Ray is started, it lets requests outlive the ``Front`` process that they went to. (Those outlive a replica
    of ``Bundles`` without it.)
    """
    return [Middleware(Repeating)]


class Repeating:
    """Sends a request on again, if it came to no answer and its client still waits.

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
        taken: list[Message] = []
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_PAUSE)
            if await self._is_answered(scope, receive, send, taken):
                return
            if any(message["type"] == "http.disconnect" for message in taken):
                return

    async def _is_answered(self, scope: Scope, receive: Receive, send: Send, taken: list[Message]) -> bool:
        """Whether an attempt began an answer; adds to ``taken`` what it was the first to receive."""
        again = iter(tuple(taken))
        start: Message | None = None  # kept until there is something to send with it: a process may die between the two
        began = False

        async def replay() -> Message:
            for message in again:
                return message
            taken.append(await receive())
            return taken[-1]

        async def note(message: Message) -> None:
            nonlocal start, began
            if message["type"] == "http.response.start":
                start = message
                return
            if not began and start is not None:
                await send(start)
            began = True
            await send(message)

        await self._app(dict(scope), replay, note)
        return began
