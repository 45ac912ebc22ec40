"""`eptx serve` in a process of its own, and raw HTTP to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: What serves, after the interpreter.
EPTX = ("-m", "eptx")


class Server:
    """A running server: where it is, what it logs, and calls of it."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, port: int) -> None:
        self.process, self.log_file, self.port = process, log, port
        self.url = f"127.0.0.1:{port}"

    def log(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        return _lines(self.log_file)

    def connect(self, timeout: float = 20.0) -> socket.socket:
        """A connection to write bytes to."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def call(
        self, method: str, path: str, body: bytes | Mapping[str, Any] | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            data = json.dumps(body).encode() if isinstance(body, Mapping) else body
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if isinstance(body, Mapping):
                sent.setdefault("content-type", "application/json")
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def infer(self, request: Mapping[str, Any], model: str = "tiny", **headers: str) -> tuple[int, Any]:
        """One inference request as JSON: status and answer."""
        status, _, body = self.call("POST", f"/v2/models/{model}/infer", request, **headers)
        return status, json.loads(body)

    def raw(self, data: bytes) -> bytes:
        """What comes back for some bytes, until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over the series that have these labels."""
        _, _, text = self.call("GET", "/metrics")
        total = 0.0
        for line in text.decode().splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(f'{k}="{v}"' in series for k, v in labels.items()):
                total += float(value)
        return total

    def stop(self) -> int:
        """Sends SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def read_all(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    data = b""
    while block := connection.recv(1 << 16):
        data += block
    return data


@contextmanager
def serving(folder: Path, *arguments: str | Path, program: Sequence[str] = EPTX) -> Iterator[Server]:
    """A server of some bundles on a free port; logs into the folder."""
    log = folder / f"log{time.monotonic_ns()}"
    command = [sys.executable, "-W", "error", *program, "serve", "--port", "0", "--threads", "1"]
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [*command, *map(str, arguments)], stdout=file, stderr=file, env={**os.environ, "PYTHONSAFEPATH": "1"}
        )
    try:
        yield Server(process, log, _port(process, log))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(condition: Any, seconds: float = 15.0) -> Any:
    """What a condition gives when it is true; fails when it does not become so."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return value


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    def started() -> list[int]:
        assert process.poll() is None, log.read_text()
        return [line["port"] for line in _lines(log) if line["event"] == "start"]

    return int(wait_for(started, 60)[0])


def _lines(log: Path) -> list[dict[str, Any]]:
    text = log.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
