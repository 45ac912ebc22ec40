"""What the tests of the example for Node and browsers share: where it is, its servers, and waiting for a page."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from tests.support.browser import CHROMIUM, Opened

ROOT = Path(__file__).parents[2]
WEB = ROOT / "examples" / "web"

needs_node = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="Node or npm is not installed"
)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def node(folder: Path, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs one of the example's programs."""
    command = ["node", script, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The example's own server, on a port that the system picks."""
    with subprocess.Popen(["node", "serve.mjs", "0"], cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


@contextmanager
def served_plainly(folder: Path) -> Iterator[str]:
    """Any server, which does not isolate the page."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def until(page: Opened, script: str, seconds: float = 60) -> None:
    """Waits until an expression is true in a page."""
    end = monotonic() + seconds
    while not page.evaluate(script):
        assert monotonic() < end, (script, page.evaluate("document.body.innerText"), page.messages)
        sleep(0.05)
