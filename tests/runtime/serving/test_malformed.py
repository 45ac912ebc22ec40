"""What is no request: each is refused with a clear line, and the server answers the next one."""

from __future__ import annotations

import json
import re
import struct
import time
from typing import Any

import pytest

from tests.runtime.serving.servers import Server, read_all

IDS = {"name": "input_ids", "datatype": "INT64", "shape": [1, 2], "data": [2, 5]}
GOOD = {"inputs": [IDS], "parameters": {"task": "sst2"}}
PATH = "/v2/models/tiny/infer"


def changed(**changes: Any) -> dict[str, Any]:
    """The good request with its tensor changed."""
    return {**GOOD, "inputs": [{k: v for k, v in {**IDS, **changes}.items() if v is not ...}]}


def text(value: Any, **changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [value], **changes}]}


BODIES: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "not valid JSON"),
    "half of a JSON": (b'{"inputs": [', "not valid JSON"),
    "not UTF-8": (b'{"inputs": "\xff"}', "not UTF-8 text"),
    "half a surrogate pair": (b'{"id": "\\ud800", "inputs": []}', "surrogate"),
    "a list": (b"[]", "the request must be a JSON object"),
    "a key twice": (b'{"inputs": [], "inputs": []}', "'inputs' appears twice"),
    "NaN": (b'{"inputs": [NaN]}', "NaN is not a number"),
    "a number out of range": (b'{"inputs": [1e999]}', "out of range"),
    "deep JSON": (b'{"inputs":' + b"[" * 90_000 + b"]" * 90_000 + b"}", "nested too deeply"),
    "long integer": (b'{"inputs": [' + b"9" * 5000 + b"]}", "not valid JSON"),
    "no inputs": ({"parameters": {"task": "sst2"}}, "the request has no inputs"),
    "empty inputs": ({"inputs": []}, "the request has no inputs"),
    "an input that is no object": ({"inputs": [3]}, r"inputs\[0\] must be a JSON object"),
    "an input without a name": (changed(name=...), r"inputs\[0\] has no name"),
    "an input twice": ({**GOOD, "inputs": [IDS, IDS]}, "input 'input_ids' is given twice"),
    "an unknown input": ({**GOOD, "inputs": [IDS, {**IDS, "name": "pixels"}]}, "no input 'pixels'; the model has"),
    "an unknown datatype": (changed(datatype="INT7"), "datatype must be one of BOOL"),
    "the wrong datatype": (changed(datatype="FP32"), "input input_ids is float32; the model takes int64"),
    "shape against data": (changed(shape=[1, 3]), r"2 elements; shape \[1, 3\] takes 3"),
    "a negative shape": (changed(shape=[-1, 2]), "shape holds something that is no size"),
    "a huge shape": (changed(shape=[2**31 - 1] * 8), "2 elements; shape"),
    "a fractional shape": (changed(shape=[1.0, 2]), "shape holds something that is no size"),
    "too many dimensions": (changed(shape=[1] * 9), "at most 8 sizes"),
    "the wrong rank": (changed(shape=[2]), "has 1 dimensions; the model takes"),
    "an empty batch": (changed(shape=[0, 2], data=[]), "is empty: its batch is 0"),
    "rows of different length": (changed(shape=[2, 2], data=[[2, 5], [2]]), "rows differ in length"),
    "no data": (changed(data=...), "give either data or the parameter binary_data_size"),
    "data of another type": (changed(data=["2", "5"]), "a value of type str, which is not INT64"),
    "true as a number": (changed(data=[True, 2]), "a value of type bool, which is not INT64"),
    "a number that does not fit": (changed(datatype="INT8", data=[2, 300]), "a value that does not fit INT8"),
    "a token past the vocabulary": (changed(data=[2, 12]), r"input_ids\[0, 1\] is 12; token ids are 0 to 11"),
    "a negative token": (changed(data=[2, -1]), r"input_ids\[0, 1\] is -1"),
    "more tokens than the model reads": (changed(shape=[1, 17], data=[2] * 17), "reads at most 16"),
    "more rows than a request may have": (changed(shape=[33, 1], data=[2] * 33), "this server takes 32"),
    "shared memory": (
        changed(data=..., parameters={"shared_memory_region": "x"}),
        "the parameter shared_memory_region is not supported",
    ),
    "a sequence": ({**GOOD, "parameters": {"sequence_id": 4}}, "sequence_id is not supported"),
    "parameters that are no object": (
        {**GOOD, "parameters": [1]},
        "the parameters of the request must be a JSON object",
    ),
    "an unknown task": ({**GOOD, "parameters": {"task": "sst3"}}, "did you mean 'sst2'"),
    "a task that is a number": ({**GOOD, "parameters": {"task": 3}}, "the parameter task must be a name"),
    "tasks for other rows": ({**GOOD, "parameters": {"tasks": ["sst2", "mnli"]}}, "2 tasks for a batch of 1"),
    "a task twice": ({**GOOD, "parameters": {"task": "sst2", "tasks": "mnli"}}, "give one of the parameter task"),
    "no task": ({"inputs": [IDS]}, "name a task: sst2, mnli, stsb, base"),
    "an unknown output": ({**GOOD, "outputs": [{"name": "x"}]}, "no output 'x'; this bundle has"),
    "an output twice": ({**GOOD, "outputs": [{"name": "logits"}] * 2}, "asked for twice"),
    "an output's flag": (
        {**GOOD, "outputs": [{"name": "logits", "parameters": {"binary_data": 1}}]},
        "binary_data must be true or false",
    ),
    "a timeout that is none": ({**GOOD, "parameters": {"task": "sst2", "timeout": "1s"}}, "number of microseconds"),
    "an id that is a number": ({**GOOD, "id": 7}, "id must be a text"),
    "text that is a number": (text(3), "a value of type int, which is not BYTES"),
    "text and tokens": ({"inputs": [IDS, *text("good")["inputs"]]}, "not both"),
    "a pair without a text": (text("good", name="text_pair"), "text_pair needs the input text"),
    "a table of texts": (text("good", shape=[1, 2], data=["good", "bad"]), "it must be"),
}


def error_of(body: bytes) -> str:
    """The error's line, which must be one."""
    (name, line), *others = json.loads(body).items()
    assert (name, others) == ("error", [])
    assert line
    assert "\n" not in line
    assert len(line) < 500
    return str(line)


def works(server: Server) -> None:
    assert server.infer(GOOD)[0] == 200


@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_is_no_request(server: Server, case: str) -> None:
    body, line = BODIES[case]
    status, _, answer = server.call("POST", PATH, body, content_type="application/json")
    assert status == 400
    assert re.search(line, error_of(answer)), error_of(answer)
    works(server)


@pytest.mark.parametrize(
    ("task", "token", "said"),
    [
        ("mnli", 10, "input input_ids[0, 1] is 10; task mnli has token ids 0 to 9"),
        ("base", 8, "input input_ids[0, 1] is 8; task base has token ids 0 to 7"),
        ("sst2", 12, "input input_ids[0, 1] is 12; token ids are 0 to 11"),
    ],
)
def test_a_token_that_the_task_lacks(server: Server, task: str, token: int, said: str) -> None:
    def ask(token: int) -> tuple[int, Any]:
        return server.infer(changed(data=[2, token]) | {"parameters": {"task": task}}, model="narrow")

    status, answer = ask(token)
    assert (status, answer["error"]) == (400, said)
    assert ask(token - 1)[0] == 200


def test_a_text_with_a_token_that_the_task_lacks(server: Server) -> None:
    two = text("a good book", shape=[2], data=["a good book", "the film"])
    status, answer = server.infer(two | {"parameters": {"tasks": ["sst2", "base"]}}, model="narrow")
    assert (status, answer["error"]) == (400, "input input_ids[1, 1] is 11; task base has token ids 0 to 7")
    assert server.infer(two | {"parameters": {"tasks": ["base", "sst2"]}}, model="narrow")[0] == 400
    assert server.infer(two | {"parameters": {"tasks": ["sst2", "sst2"]}}, model="narrow")[0] == 200


BINARY = {"name": "input_ids", "datatype": "INT64", "shape": [1, 2], "parameters": {"binary_data_size": 16}}
SIXTEEN = struct.pack("<qq", 2, 5)
TEXTS = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 8}}


@pytest.mark.parametrize(
    ("tensor", "data", "length", "line"),
    [
        (BINARY, SIXTEEN[:15], None, "binary_data_size is 16; 15 bytes of binary data are left"),
        (BINARY, SIXTEEN + b"x", None, "1 bytes follow the last input's binary data"),
        ({**BINARY, "shape": [1, 3]}, SIXTEEN, None, "16 bytes of binary data; shape [1, 3] of INT64 takes 24"),
        ({**BINARY, "parameters": {"binary_data_size": -1}}, SIXTEEN, None, "binary_data_size is -1"),
        ({**BINARY, "parameters": {"binary_data_size": True}}, SIXTEEN, None, "binary_data_size is True"),
        ({**BINARY, "data": [2, 5]}, SIXTEEN, None, "give either data or the parameter binary_data_size"),
        (BINARY, SIXTEEN, "99999", "must be a number of bytes of the body"),
        (BINARY, SIXTEEN, "-1", "must be a number of bytes of the body"),
        (BINARY, SIXTEEN, "1", "not valid JSON"),
        ({**BINARY, "datatype": "BOOL", "shape": [16]}, b"\x02" * 16, None, "neither 0 nor 1"),
        (TEXTS, struct.pack("<I", 9) + b"good", None, "end within an element"),
        (TEXTS, b"\x00\x00\x00\x00\x01\x00\x00", None, "7 bytes of binary data are left"),
        (TEXTS, struct.pack("<I", 2) + b"ab" + b"\x01\x00", None, "end within an element's length"),
        (TEXTS, struct.pack("<I", 4) + b"\xff" * 4, None, "not UTF-8 text"),
    ],
)
def test_binary_data_that_do_not_fit(
    server: Server, tensor: dict[str, Any], data: bytes, length: str | None, line: str
) -> None:
    head = json.dumps({"inputs": [tensor], "parameters": {"task": "sst2"}}).encode()
    header = {"Inference_Header_Content_Length": str(len(head)) if length is None else length}
    status, _, answer = server.call("POST", PATH, head + data, content_type="application/octet-stream", **header)
    assert status == 400
    assert line in error_of(answer)
    works(server)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/nothing/infer", 404),
        ("/v2/models/..%2f..%2fetc%2fpasswd/infer", 404),
        ("/v2/models/%2e%2e/infer", 404),
        ("/v2/models/tiny%00/infer", 404),
        ("/v2/models/tiny/versions/2/infer", 404),
        ("/v2/models/tiny/versions/..%2f1/infer", 404),
        ("/v2/models//infer", 404),
        ("/v2/repository/models/..%2ftiny/load", 404),
        ("/v2/models/tiny", 405),
        ("/v2/health/live", 405),
    ],
)
def test_paths_that_lead_nowhere(server: Server, path: str, status: int) -> None:
    found, _, answer = server.call("POST", path, GOOD)
    assert found == status
    error_of(answer)
    works(server)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"content_type": "text/plain"}, 415),
        ({"content_encoding": "gzip"}, 415),
        ({"x_request_timeout_ms": "soon"}, 400),
    ],
)
def test_headers_that_are_refused(server: Server, headers: dict[str, str], status: int) -> None:
    found, _, answer = server.call("POST", PATH, GOOD, **headers)
    assert found == status
    error_of(answer)
    works(server)


HEAD = b"POST " + PATH.encode() + b" HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"POST / HTTP/9.9\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", 400),
        (HEAD + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}", 400),
        (HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400),
        (HEAD + b"content-length: -2\r\n\r\n{}", 400),
        (HEAD + b"content-length: 99999999999999999999999999\r\n\r\n{}", 400),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nnot a size\r\n", 400),
        (HEAD + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\n{}", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (HEAD + b"a header without a colon\r\n\r\n", 400),
        (HEAD + b"x: y\r\n" * 200 + b"\r\n", 431),
        (HEAD + b"x: " + b"y" * 100_000 + b"\r\n\r\n", 431),
        (HEAD + b"x: " + b"y" * 100_000, 431),
        (b"GET /" + b"y" * 100_000 + b" HTTP/1.1\r\n\r\n", 431),
    ],
)
def test_bytes_that_are_no_http(server: Server, data: bytes, status: int) -> None:
    head, _, body = server.raw(data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert error_of(body)
    works(server)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit(server: Server, chunked: bool) -> None:
    size = 300_000
    if chunked:
        data = HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"3e8\r\n" + b" " * 1000 + b"\r\n"
        data += (b"3e8\r\n" + b" " * 1000 + b"\r\n") * (size // 1000) + b"0\r\n\r\n"
    else:
        data = HEAD + b"content-length: %d\r\n\r\n" % size + b" " * size
    head, _, body = server.raw(data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert error_of(body) == "the body is larger than 200000 bytes"
    works(server)


def test_a_body_over_the_limit_is_refused_before_it_is_sent(server: Server) -> None:
    answer = server.raw(HEAD + b"content-length: 999999999999\r\nexpect: 100-continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    works(server)


def test_bodies_that_are_too_large_together(server: Server) -> None:
    size = 180_000
    head = HEAD + b"content-length: %d\r\n\r\n" % size
    connections = [server.connect() for _ in range(19)]  # the server holds 16 of 200,000 bytes
    try:
        for connection in connections:
            connection.sendall(head + b" " * (size - 1))
        answers = [read_all(connection) for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    codes = {answer.split(b" ")[1] for answer in answers}
    assert codes == {b"503", b"408"}
    works(server)


def test_slow_senders_are_timed_out(server: Server) -> None:
    sent = [b"GET /v2 HT", HEAD + b"content-length: 10\r\n\r\n{", b"", b"\r\n"]
    with server.connect() as head, server.connect() as body, server.connect() as silent, server.connect() as crlf:
        connections = [head, body, silent, crlf]
        for connection, data in zip(connections, sent, strict=True):
            connection.sendall(data)
        works(server)
        started = time.monotonic()
        answers = [read_all(connection) for connection in connections]
        assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
        assert time.monotonic() - started < 3


def test_one_byte_at_a_time_is_answered(server: Server) -> None:
    body = json.dumps(GOOD).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    data = HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n" + chunks
    with server.connect() as connection:
        for byte in data:
            connection.send(bytes([byte]))
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    body = [json.dumps({**GOOD, "id": name}).encode() for name in "abc"]
    data = b"".join(HEAD + b"content-length: %d\r\n\r\n" % len(b) + b for b in body[:2])
    data += HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body[2]) + body[2]
    answer = server.raw(data)
    places = [answer.index(b'"id":"%s"' % name) for name in (b"a", b"b", b"c")]
    assert places == sorted(places)


def test_the_server_logged_no_traceback(server: Server) -> None:
    assert [line for line in server.log() if line["level"] == "error"] == []
