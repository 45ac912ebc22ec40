"""Clients that leave, deadlines, full queues, replaced bundles and the end of the server."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.serving.servers import Server, serving, wait_for
from tests.support.tiny_bundle import write_tiny

REQUEST = {
    "inputs": [{"name": "input_ids", "datatype": "INT64", "shape": [1, 2], "data": [2, 5]}],
    "parameters": {"task": "sst2"},
}


def rows(count: int) -> dict[str, Any]:
    tensor = {"name": "input_ids", "datatype": "INT64", "shape": [count, 2], "data": [2, 5] * count}
    return {**REQUEST, "inputs": [tensor]}


def token(value: int) -> dict[str, Any]:
    tensor = {"name": "input_ids", "datatype": "INT64", "shape": [1, 3], "data": [2, value, 3]}
    return {"inputs": [tensor], "parameters": {"task": "sst2"}, "outputs": [{"name": "logits"}]}


@pytest.fixture(scope="module")
def patient(folder: Path) -> Iterator[Server]:
    """A server that waits long for company, so that requests can be caught in its queue."""
    with serving(folder, f"tiny={folder / 'tiny'}", "--max-delay-ms", "1500", "--max-batch", "4", "--queue", "4") as it:
        yield it


def test_neighbours_of_a_poisoned_request_are_answered(server: Server) -> None:
    expected = {t: server.infer(token(t), "open")[1]["outputs"] for t in range(5, 12)}
    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            poisoned = pool.submit(server.infer, token(99), "open")
            others = {t: pool.submit(server.infer, token(t), "open") for t in expected}
        status, answer = poisoned.result()
        assert status == 400
        assert answer["error"].startswith("ONNX Runtime fails on this request")
        for t, other in others.items():
            assert other.result()[0] == 200
            np.testing.assert_allclose(
                other.result()[1]["outputs"][0]["data"], expected[t][0]["data"], rtol=1e-5, atol=1e-6
            )


def test_a_full_queue_says_when_to_come_back(patient: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(patient.infer, rows(3))
        wait_for(lambda: patient.metric("eptx_queue_rows") == 3)
        status, headers, body = patient.call("POST", "/v2/models/tiny/infer", rows(2))
        assert (status, headers["retry-after"]) == (429, "1")
        assert json.loads(body)["error"].startswith("the queue is full: 3 rows wait")
        assert patient.infer(rows(1))[0] == 200  # there is room for it, and now for no company to wait for
        assert waiting.result()[0] == 200


@pytest.mark.parametrize("where", ["header", "parameter"])
def test_what_is_late_is_dropped_from_the_queue(patient: Server, where: str) -> None:
    started = time.monotonic()
    if where == "header":
        status, answer = patient.infer(REQUEST, x_request_timeout_ms="50")
    else:
        status, answer = patient.infer({**REQUEST, "parameters": {"task": "sst2", "timeout": 50_000}})
    assert status == 504
    assert "deadline" in answer["error"]
    assert time.monotonic() - started < 1
    assert patient.metric("eptx_queue_rows") == 0


def test_what_nobody_waits_for_is_dropped_from_the_queue(patient: Server) -> None:
    ran = patient.metric("eptx_batch_rows_count")
    body = json.dumps(REQUEST).encode()
    head = b"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    with patient.connect() as connection:
        connection.sendall(head + body)
        wait_for(lambda: patient.metric("eptx_queue_rows") == 1)
    wait_for(lambda: patient.metric("eptx_queue_rows") == 0, 1)
    assert patient.metric("eptx_batch_rows_count") == ran
    assert patient.metric("eptx_requests_total", code="499") >= 1


def test_sigterm_answers_what_was_accepted(folder: Path) -> None:
    with serving(folder, folder / "tiny", "--max-delay-ms", "600") as server:
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(server.infer, REQUEST) for _ in range(8)]
            wait_for(lambda: server.metric("eptx_queue_rows") == 8)
            assert server.stop() == 0
        assert [answer.result()[0] for answer in answers] == [200] * 8
        assert [line["event"] for line in server.log()] == ["loaded", "start", "draining", "stop"]
        with pytest.raises(ConnectionError):
            server.call("GET", "/v2")


class Load:
    """Requests without a pause from a few threads."""

    def __init__(self, server: Server) -> None:
        self._server, self._stop = server, threading.Event()
        self._pool = ThreadPoolExecutor(3)
        self._running: list[Future[list[tuple[int, str]]]] = []

    def __enter__(self) -> Load:
        self._running = [self._pool.submit(self._ask) for _ in range(3)]
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._pool.shutdown()

    @property
    def answers(self) -> list[tuple[int, str]]:
        return [answer for future in self._running for answer in future.result()]

    def _ask(self) -> list[tuple[int, str]]:
        answers = []
        while not self._stop.is_set():
            status, answer = self._server.infer(token(5))
            answers.append((status, json.dumps(answer.get("outputs", answer))))
        return answers


def test_a_replaced_bundle_is_loaded_without_losing_a_request(tmp_path: Path) -> None:
    bundle = tmp_path / "tiny"
    write_tiny(bundle)

    def fingerprint() -> str:
        _, _, body = server.call("GET", "/v2/models/tiny")
        return str(json.loads(body)["parameters"]["fingerprints"]["adapter"])

    with serving(tmp_path, bundle) as server:
        with Load(server) as load:
            write_tiny(bundle, fingerprints={"base": "sha256:0", "adapter": "sha256:2"})
            wait_for(lambda: fingerprint() == "sha256:2")
            write_tiny(bundle, fingerprints={"base": "sha256:0", "adapter": "sha256:3"})
            status, _, _ = server.call(
                "POST", "/v2/repository/models/tiny/load", b"{}", content_type="application/json"
            )
            assert (status, fingerprint()) == (200, "sha256:3")
            write_tiny(bundle, fingerprints={"base": "sha256:0", "adapter": "sha256:4"})
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: fingerprint() == "sha256:4")
        assert len(load.answers) > 50
        assert len(set(load.answers)) == 1
        assert load.answers[0][0] == 200
        _stays_with_what_works(server, bundle)
        assert server.stop() == 0


def _stays_with_what_works(server: Server, bundle: Path) -> None:
    shutil.copy(bundle / "eptx.json", bundle / "kept")
    (bundle / "eptx.json").write_text("{")
    wait_for(lambda: [line for line in server.log() if line["event"] == "reload failed"])
    status, _, body = server.call("POST", "/v2/repository/models/tiny/load")
    assert status == 400
    assert "the one before is still served: eptx.json: not valid JSON" in json.loads(body)["error"]
    assert server.infer(REQUEST)[0] == 200
    assert server.call("GET", "/v2/health/ready")[0] == 200
    assert server.metric("eptx_reloads_total", result="failed") == 2
    (bundle / "kept").rename(bundle / "eptx.json")
    assert server.call("POST", "/v2/repository/models/tiny/load")[0] == 200


def test_connections_beyond_the_limit_are_told_so(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, folder / "tiny", "--max-connections", "3") as server:
        idle = [server.connect() for _ in range(3)]
        try:
            wait_for(lambda: b"HTTP/1.1 503" in server.raw(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n"))
            assert b"HTTP/1.1 200" in server.raw(
                b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            )
            began = time.monotonic()
            assert b"HTTP/1.1 408" in server.raw(b"GET /v2")  # and it does not wait for long
            assert time.monotonic() - began < 5
        finally:
            for connection in idle:
                connection.close()
        wait_for(lambda: server.infer(REQUEST)[0] == 200)


def test_a_token_is_asked_for(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("# ours\nsecret-one\n\nsecret-two\n")
    with serving(tmp_path, folder / "tiny", "--token-file", tmp_path / "tokens") as server:
        assert server.infer(REQUEST)[0] == 401
        assert server.infer(REQUEST, authorization="Bearer secret")[0] == 401
        assert server.infer(REQUEST, authorization="Basic secret-one")[0] == 401
        assert server.infer(REQUEST, authorization="Bearer secret-one")[0] == 200
        assert server.infer(REQUEST, authorization="bearer secret-two")[0] == 200
        assert server.call("GET", "/metrics")[0] == 401
        bearer = {"authorization": "Bearer secret-one"}
        _, _, text = server.call("GET", "/metrics", **bearer)
        assert 'eptx_requests_total{code="401",model="",verb=""} 4.0' in text.decode()
        assert server.call("GET", "/v2/health/ready")[0] == 200


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls(folder: Path, tmp_path: Path) -> None:
    import ssl
    import urllib.request

    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    with serving(tmp_path, folder / "tiny", "--tls-cert", cert, "--tls-key", key) as server:
        trusted = ssl.create_default_context(cafile=str(cert))
        with urllib.request.urlopen(f"https://{server.url}/v2/health/ready", context=trusted) as answer:
            assert json.load(answer) == {"ready": True}
        assert server.raw(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n") == b""


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["nothing"], 3, "no such bundle"),
        (["{tiny}", "{tiny}"], 2, "two bundles are named 'tiny'"),
        (["a b={tiny}"], 2, "'a b' cannot be a model's name"),
        (["{tiny}", "--queue", "3"], 2, "queue must hold one batch"),
        (["{tiny}", "--max-batch", "0"], 2, "max_batch must be at least 1"),
        (["{tiny}", "--token-file", "nothing"], 2, "nothing: cannot be read"),
        (["{tiny}", "--tls-key", "nothing"], 2, "--tls-key needs --tls-cert"),
        (["{tiny}", "--tls-cert", "nothing"], 2, "the TLS certificate or key cannot be used"),
        (["{tiny}", "--host", "256.0.0.1"], 2, "host '256.0.0.1'"),
        (["{tiny}", "--port", "{port}"], 2, "cannot listen on 127.0.0.1 port"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    server: Server, folder: Path, arguments: list[str], code: int, line: str
) -> None:
    given = [text.format(tiny=folder / "tiny", port=server.port) for text in arguments]
    command = [sys.executable, "-m", "eptx", "serve", "--port", "0", *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ")
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_its_packages_it_says_what_to_install(folder: Path) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; import eptx.cli; sys.argv[0] = 'eptx'; eptx.cli.main()"
    command = [sys.executable, "-c", code, "serve", str(folder / "tiny")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (5, "error: serving needs uvicorn: pip install 'eptx[serve]'\n")
