"""Starts everything: ``eptx serve`` with the bundle, and the desk's page before it.

    python examples/support_desk/app.py [--bundle FOLDER] [--port 8000] [--model-port 8001]

The page is a small Starlette application. It turns a message into one request to the model's endpoint; the endpoint may
as well be another machine's.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from desk import Shop, answer, ask, logits_of, request, tasks_of
from prepare import BUNDLE, prepare
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

HERE = Path(__file__).resolve().parent
SHOP = HERE / "shop.json"
MODEL = "desk"
#: Characters of a message, so that no message keeps the model busy for long; it reads 512 tokens of a row.
LONGEST = 300
_TOKENS = 512
_SECONDS = 60


class Endpoint:
    """The model's endpoint.

    Args:
        host, port: where ``eptx serve`` listens.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    def infer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """One inference request: status and answer."""
        return self._call("POST", f"/v2/models/{MODEL}/infer", body)

    def ready(self) -> bool:
        """Whether the model answers."""
        try:
            return self._call("GET", "/v2/health/ready")[0] == 200
        except OSError:
            return False

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_SECONDS)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


def create_app(shop: Shop, endpoint: Endpoint) -> Starlette:
    """The page, and ``POST /ask``, which answers a message."""

    async def asked(received: Request) -> Response:
        try:
            message = _message(await received.body())
        except ValueError as error:
            return _error(400, str(error))
        rows = ask(shop, message)
        began = time.perf_counter()
        try:
            status, response = await run_in_threadpool(endpoint.infer, request(rows))
        except (OSError, ValueError, http.client.HTTPException):
            return _error(502, "the model does not answer; is eptx serve running?")
        if status != 200:
            return _error(status, response.get("error", "the model refused the request"))
        batch = {"rows": len(rows), "tasks": tasks_of(rows), "milliseconds": 1000 * (time.perf_counter() - began)}
        return JSONResponse({**answer(shop, message, logits_of(response, rows)), "batch": batch})

    async def data(received: Request) -> Response:
        return FileResponse(SHOP)

    routes = [
        Route("/ask", asked, methods=["POST"]),
        Route("/shop.json", data),
        Mount("/", StaticFiles(directory=HERE / "page", html=True)),
    ]
    return Starlette(routes=routes)


def _message(body: bytes) -> str:
    """The message of a request ``{"message": "..."}``."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    message = given.get("message") if isinstance(given, dict) else None
    if not isinstance(message, str) or not message.strip():
        raise ValueError('send JSON: {"message": "a text"}')
    if len(message) > LONGEST:
        raise ValueError(f"the message has {len(message)} characters; the desk reads {LONGEST}")
    return message.strip()


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


@contextmanager
def serving(bundle: Path, shop: Shop, port: int) -> Iterator[Endpoint]:
    """``eptx serve`` in a process of its own, with room for one message's rows in a run."""
    rows = len(ask(shop, ""))
    command = [sys.executable, "-m", "eptx", "serve", f"{MODEL}={bundle}", "--port", str(port)]
    command += ["--max-batch", str(rows), "--max-tokens", str(rows * _TOKENS)]
    with subprocess.Popen([*command, "--log-level", "warning"]) as process:
        endpoint = Endpoint("127.0.0.1", port)
        try:
            while not endpoint.ready():
                if process.poll() is not None:
                    raise SystemExit("eptx serve has ended; see above")
                time.sleep(0.1)
            yield endpoint
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="exported there if it is not yet")
    parser.add_argument("--port", type=int, default=8000, help="of the page")
    parser.add_argument("--model-port", type=int, default=8001, help="of eptx serve")
    options = parser.parse_args()
    if not (options.bundle / "eptx.json").exists():
        print(f"exporting {os.path.relpath(options.bundle)}", flush=True)
        prepare(options.bundle)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that eptx serve is ended too
    shop = Shop.read(SHOP)
    with serving(options.bundle, shop, options.model_port) as endpoint:
        print(f"http://localhost:{options.port}/", flush=True)
        uvicorn.run(create_app(shop, endpoint), host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
