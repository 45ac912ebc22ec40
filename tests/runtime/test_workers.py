"""Sessions in the workers of real servers: gunicorn forks them after the session is open, uvicorn starts each anew."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eptx.bundle import Bundle
from eptx.runtime import Session
from tests.support.tiny_bundle import write_tiny

ROWS = [[2, 5, 3], [2, 6, 3]]
_OPEN = f"""
import json, os
import eptx
session = eptx.Session(os.environ["BUNDLE"], threads=1)
def answer():
    logits = session.run({{"input_ids": {ROWS}}}, "sst2").logits
    return json.dumps([os.getpid(), [row.tolist() for row in logits]]).encode()
"""
#: gunicorn opens the session and answers once in the process that forks.
_WSGI = """
answer()
def app(environ, start_response):
    body = answer()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
_ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer()})
"""
SERVERS = {
    "gunicorn": (_WSGI, ["gunicorn", "--preload", "--workers", "2", "--bind", "127.0.0.1:{port}", "app:app"]),
    "uvicorn": (_ASGI, ["uvicorn", "--workers", "2", "--lifespan", "off", "--port", "{port}", "app:app"]),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.parametrize("server", SERVERS)
def test_workers_answer_and_end(bundle: Bundle, tmp_path: Path, server: str) -> None:
    module, command = SERVERS[server]
    (tmp_path / "app.py").write_text(_OPEN + module)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *(part.format(port=port) for part in command)],
            cwd=tmp_path,
            env={**os.environ, "BUNDLE": str(bundle.path)},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        answers, end = {}, time.monotonic() + 60
        while len(answers) < 2 and time.monotonic() < end and process.poll() is None:
            found = _ask(port)
            answers |= {found[0]: found[1]} if found else {}
        wanted = [row.tolist() for row in Session(bundle).run({"input_ids": ROWS}, "sst2").logits]
        assert len(answers) == 2, log.read_text()
        assert process.pid not in answers
        assert list(answers.values()) == [wanted, wanted]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM), log.read_text()
        assert not any(_alive(pid) for pid in answers), log.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ask(port: int) -> tuple[int, list[list[float]]] | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/")
        pid, logits = json.loads(connection.getresponse().read())
        return pid, logits
    except OSError:
        time.sleep(0.1)
        return None
    finally:
        connection.close()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
