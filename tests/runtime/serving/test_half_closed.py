"""Clients that end their side of the connection: those that wait get their answer, and those that have gone do not."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.serving.servers import Server, read_all, serving, wait_for
from tests.support.decoders import write_decoder_bundle

IDS = {"name": "input_ids", "datatype": "INT64", "shape": [1, 2], "data": [2, 5]}
GOOD = json.dumps({"inputs": [IDS], "parameters": {"task": "sst2"}}).encode()


def asking(body: bytes = GOOD, version: str = "1.1", path: str = "/v2/models/tiny/infer") -> bytes:
    return f"POST {path} HTTP/{version}\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def half_closed(server: Server, data: bytes) -> bytes:
    """What comes back for some bytes to a client that then says it sends no more."""
    with server.connect() as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


@pytest.fixture(scope="module")
def slow(folder: Path) -> Iterator[Server]:
    """A server that waits for company longer than it takes to see whether a client is there."""
    with serving(folder, folder / "tiny", "--max-delay-ms", "900", "--max-batch", "4", "--queue", "4") as server:
        yield server


def test_a_client_that_sends_no_more_gets_its_answer(server: Server) -> None:
    head, _, body = half_closed(server, asking()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(body)["outputs"]
    assert half_closed(server, b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert half_closed(server, asking(b"{}")).startswith(b"HTTP/1.1 400 ")


def test_all_that_it_asked_is_answered(slow: Server) -> None:
    answer = half_closed(slow, asking() * 3)
    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert half_closed(slow, asking() + b"POST /v2/mod").count(b"HTTP/1.1 200 ") == 1


def test_half_a_request_has_no_answer(server: Server) -> None:
    for data in (asking()[:-1], b"GET /v2 HTTP/1.1\r\nho", b""):
        began = time.monotonic()
        assert half_closed(server, data) == b""
        assert time.monotonic() - began < 0.9  # at once, not when the time for it is over


def test_an_answer_that_takes_a_while(slow: Server) -> None:
    *interim, head, body = half_closed(slow, asking()).split(b"\r\n\r\n")
    assert interim == [b"HTTP/1.1 100 Continue"] * 2
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(body)["outputs"]


def test_a_client_of_http_1_0_is_sent_nothing_before_its_answer(slow: Server) -> None:
    assert half_closed(slow, asking(version="1.0")).startswith(b"HTTP/1.1 200 ")


def test_who_has_gone_is_noticed(slow: Server) -> None:
    ran = slow.metric("eptx_batch_rows_count")
    with slow.connect() as connection:
        connection.sendall(asking())
        wait_for(lambda: slow.metric("eptx_queue_rows") == 1)
    wait_for(lambda: slow.metric("eptx_queue_rows") == 0, 0.8)
    assert slow.metric("eptx_batch_rows_count") == ran


def test_an_answer_in_events(tmp_path: Path) -> None:
    bundle = write_decoder_bundle(tmp_path / "writer").path
    body = json.dumps({"text_input": "w5 w9", "parameters": {"task": "task1", "max_tokens": 12}}).encode()
    with serving(tmp_path, bundle) as server:
        answer = half_closed(server, asking(body, path="/v2/models/writer/generate_stream"))
        assert b'"details":{"finish_reason":' in answer
        assert answer.endswith(b"\r\n0\r\n\r\n")
