"""The ASGI application: the Open Inference Protocol v2 over REST, and the paths of OpenAI's clients."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from eptx._version import __version__
from eptx.errors import RequestError
from eptx.files.strict_json import parse_json
from eptx.runtime.serving.errors import VERSION, Refused, refusal
from eptx.runtime.serving.http.auth import BearerTokens
from eptx.runtime.serving.http.body import BodyReader
from eptx.runtime.serving.http.errors import error_response
from eptx.runtime.serving.http.events import answer_in_events, cancelled_if_gone
from eptx.runtime.serving.http.openai import OpenAIPaths
from eptx.runtime.serving.http.openapi import describe
from eptx.runtime.serving.http.pages import page
from eptx.runtime.serving.http.tracing import span
from eptx.runtime.serving.interface import Registry
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import CONTENT_TYPE, Metrics
from eptx.runtime.serving.protocol.infer import HEADER_LENGTH

_log = logging.getLogger("eptx.serving")
_EXTENSIONS = ["binary_tensor_data", "parameters", "generate", "model_repository"]
#: The header for the milliseconds that a client allows, beside the protocol's parameter ``timeout``.
_TIMEOUT = "x-request-timeout-ms"
#: nginx's status for a client that did not wait. It is counted; nobody receives it.
_CLIENT_GONE = 499

Handler = Callable[[Request], Awaitable[Response]]


def create_app(registry: Registry, metrics: Metrics, limits: Limits, tokens: Sequence[str] = ()) -> ASGIApp:
    """The application that serves a registry's models.

    Args:
        registry: that the caller starts and closes.
        metrics: those of the registry.
        limits: those of the registry.
        tokens: every request must bring one of them; empty: requests need none.
    """
    service = _Service(registry, metrics, limits, tokens=bool(tokens))
    app = Starlette(
        routes=service.routes(),
        exception_handlers={HTTPException: _http_error},
    )
    app.router.redirect_slashes = False
    return BearerTokens(app, tokens, metrics) if tokens else app


class _Service:
    def __init__(self, registry: Registry, metrics: Metrics, limits: Limits, *, tokens: bool) -> None:
        self._registry, self._metrics, self._limits, self._tokens = registry, metrics, limits, tokens
        self._bodies = BodyReader(limits)
        self._openai = OpenAIPaths(registry, self._bodies, self._deadline)

    def routes(self) -> list[Route]:
        """The paths."""
        models = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
        listed: list[tuple[str, str, str, Handler]] = []  # the most frequent first
        for verb, handler in (
            ("infer", self._infer),
            ("generate", self._generate),
            ("generate_stream", self._generate_stream),
        ):
            listed += [("POST", f"{path}/{verb}", verb, handler) for path in models]
        listed += [
            ("POST", "/v1/chat/completions", "chat_completions", self._openai.chat),
            ("POST", "/v1/completions", "completions", self._openai.text),
            ("POST", "/v1/embeddings", "embeddings", self._openai.embeddings),
            ("GET", "/v1/models", "models", self._openai.models),
            ("GET", "/v1/models/{model}", "openai_model", self._openai.model),
        ]
        listed += [("GET", path, "metadata", self._metadata) for path in models]
        listed += [("GET", f"{path}/ready", "model_ready", self._model_ready) for path in models]
        listed += [
            ("GET", "/v2", "server", self._server),
            ("GET", "/v2/health/live", "live", self._live),
            ("GET", "/v2/health/ready", "ready", self._ready),
            ("POST", "/v2/repository/index", "index", self._index),
            ("POST", "/v2/repository/models/{name}/load", "load", self._load),
            ("GET", "/health", "ready", self._ready),
            ("GET", "/metrics", "metrics", self._prometheus),
            ("GET", "/openapi.json", "openapi", self._openapi),
            ("GET", "/", "page", self._home),
            ("GET", "/docs", "page", self._docs),
        ]
        return [Route(path, self._endpoint(verb, handler), methods=[method]) for method, path, verb, handler in listed]

    def _endpoint(self, verb: str, handler: Handler) -> Handler:
        """A handler that is counted, traced and logged, and whose errors are answered."""

        async def endpoint(request: Request) -> Response:
            began = time.monotonic()
            request.state.model = request.path_params.get("name", "")
            with span(verb, request.headers) as attributes:
                response = await self._answer(handler, request)
                name = request.state.model if request.state.model in self._registry.names else ""
                attributes |= {"eptx.model": name, "http.response.status_code": response.status_code}
            self._metrics.request(name, verb, response.status_code)
            if _log.isEnabledFor(logging.DEBUG):
                fields = {"verb": verb, "model": name, "code": response.status_code}
                _log.debug("request", extra={"fields": {**fields, "seconds": round(time.monotonic() - began, 6)}})
            return response

        return endpoint

    async def _answer(self, handler: Handler, request: Request) -> Response:
        try:
            return await handler(request)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        except Exception as error:
            refused = refusal(error)
            if refused.status == 500:
                _log.error("request failed", exc_info=error, extra={"fields": {"path": request.url.path}})
            return error_response(request.scope, refused)

    async def _server(self, request: Request) -> Response:
        return JSONResponse({"name": "eptx", "version": __version__, "extensions": _EXTENSIONS})

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self, request: Request) -> Response:
        return _readiness(self._registry.ready)

    async def _prometheus(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(describe(self._registry.names, tokens=self._tokens))

    async def _home(self, request: Request) -> Response:
        return page("home")

    async def _docs(self, request: Request) -> Response:
        return page("docs")

    async def _metadata(self, request: Request) -> Response:
        with self._registry.use(*_named(request)) as model:
            return JSONResponse(await model.metadata())

    async def _model_ready(self, request: Request) -> Response:
        with self._registry.use(*_named(request)):
            return _readiness(self._registry.ready)

    async def _index(self, request: Request) -> Response:
        await self._options(request)
        state = "READY" if self._registry.ready else "UNAVAILABLE"
        return JSONResponse([{"name": name, "version": VERSION, "state": state} for name in self._registry.names])

    async def _load(self, request: Request) -> Response:
        if (await self._options(request)).get("parameters"):
            raise RequestError("a load takes no parameters: the bundle is read from its folder")
        name, _ = _named(request)
        with self._registry.use(name):
            pass  # there is such a model
        failed = await self._registry.reload(name)
        if failed is not None:
            raise Refused(400, f"the bundle does not load, and the one before is still served: {failed}")
        return JSONResponse({})

    async def _options(self, request: Request) -> dict[str, Any]:
        """The request's body: a JSON object, or empty."""
        async with self._bodies.read(request) as body:
            given = parse_json(body, what="the request", error=RequestError) if body else {}
        if not isinstance(given, dict):
            raise RequestError("the request must be a JSON object")
        return given

    async def _infer(self, request: Request) -> Response:
        head = request.headers.get(HEADER_LENGTH)
        async with self._bodies.read(request) as body:
            with self._registry.use(*_named(request)) as model, cancelled_if_gone(request):
                content, length = await model.infer(body, head, self._deadline(request))
        if length is None:
            return Response(content, media_type="application/json")
        return Response(content, headers={HEADER_LENGTH: str(length)}, media_type="application/octet-stream")

    async def _generate(self, request: Request) -> Response:
        async with self._bodies.read(request) as body:
            with self._registry.use(*_named(request)) as model, cancelled_if_gone(request):
                content = await model.generate(body, self._deadline(request))
        return Response(content, media_type="application/json")

    async def _generate_stream(self, request: Request) -> Response:
        async with self._bodies.read(request) as body:
            return await answer_in_events(request, self._events(request, body))

    async def _events(self, request: Request, body: bytes) -> AsyncGenerator[bytes, None]:
        with self._registry.use(*_named(request)) as model:
            async with aclosing(model.generate_stream(body, self._deadline(request))) as events:
                async for event in events:
                    yield event

    def _deadline(self, request: Request) -> float:
        """When the answer must be there: the server's own limit, or less if a header says so."""
        text = request.headers.get(_TIMEOUT)
        seconds = self._limits.timeout
        if text is not None:
            if not text.isdecimal() or len(text) > 12 or not int(text):
                raise RequestError(f"the header {_TIMEOUT} must be a number of milliseconds")
            seconds = min(seconds, int(text) / 1000)
        return time.monotonic() + seconds


def _named(request: Request) -> tuple[str, str | None]:
    return request.path_params["name"], request.path_params.get("version")


def _readiness(ready: bool) -> Response:
    return JSONResponse({"ready": ready}, 200 if ready else 503)


async def _http_error(request: Request, error: Any) -> Response:
    """Answers for the router: an unknown path, or a method that a path does not have."""
    message = {404: "there is nothing at this path", 405: f"this path does not take {request.method[:20]}"}
    refused = Refused(error.status_code, message.get(error.status_code, error.detail), error.headers)
    return error_response(request.scope, refused)
