"""Values that no field expects, in every field of every request: each is refused in one line, or taken as it says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.serving.servers import Server, serving, wait_for
from tests.runtime.serving.test_malformed import error_of
from tests.support.chat import write_chat_bundle
from tests.support.tiny_bundle import write_tiny

#: As they stand in JSON; some are none.
VALUES = {
    "4000 digits": "9" * 4000,
    "-4000 digits": "-" + "9" * 4000,
    "5000 digits": "9" * 5000,
    "400 digits": "9" * 400,
    "2^63": str(2**63),
    "2^63 - 1": str(2**63 - 1),
    "2^31": str(2**31),
    "2^31 - 1": str(2**31 - 1),
    "a large float": "1e308",
    "a float past float32": "1e39",
    "a float past float64": "1e400",
    "a small float": "5e-324",
    "NaN": "NaN",
    "infinity": "-Infinity",
    "a float that is whole": "1.0",
    "half": "0.5",
    "zero": "0",
    "minus zero": "-0.0",
    "minus one": "-1",
    "true": "true",
    "null": "null",
    "a text": '"1"',
    "NUL": '"\\u0000"',
    "half a pair": '"\\ud800"',
    "a list": "[1]",
    "a list of null": "[null]",
    "an object": '{"a": {"b": [1]}}',
}
#: Stands for the value in a body.
V = "<value>"
IDS = {"name": "input_ids", "datatype": "INT64", "shape": [1, 2], "data": [2, 5]}
TEXT = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [V]}
GOOD = {"inputs": [IDS], "parameters": {"task": "sst2"}}
_DRAW = ("temperature", "top_k", "top_p", "seed", "stop", "timeout", "stream", "task", "add_special_tokens")
_INFER = ("task", "timeout", "labels", "binary_data_output", "sequence_id", "nothing")
_TYPES = ("BOOL", "UINT8", "UINT64", "INT8", "INT64", "FP16", "FP32", "FP64", "BYTES")
#: Bodies of prompts, and of tensors.
PROMPTS: dict[str, Any] = {
    "max_tokens": {"text_input": "a", "parameters": {"max_tokens": V}},
    **{name: {"text_input": "a", "parameters": {"max_tokens": 3, name: V}} for name in _DRAW},
    "drawing": {"text_input": "a", "parameters": {"max_tokens": 3, "top_p": 0.5, "seed": 1, "temperature": V}},
    "stop texts": {"text_input": "a", "parameters": {"max_tokens": 3, "stop": [V]}},
    "text_input": {"text_input": V, "parameters": {"max_tokens": 3}},
    "parameters": {"text_input": "a", "parameters": V},
    "id": {"text_input": "a", "id": V, "parameters": {"max_tokens": 3}},
    "all": V,
}
TENSORS: dict[str, Any] = {
    **{name: {**GOOD, "parameters": {"task": "sst2", name: V}} for name in _INFER},
    "tasks": {**GOOD, "parameters": {"tasks": V}},
    "all": V,
    "inputs": {"inputs": V},
    "an input": {"inputs": [V]},
    "parameters": {**GOOD, "parameters": V},
    "id": {**GOOD, "id": V},
    "outputs": {**GOOD, "outputs": V},
    "an output": {**GOOD, "outputs": [V]},
    "an output's name": {**GOOD, "outputs": [{"name": V}]},
    "an output's flag": {**GOOD, "outputs": [{"name": "logits", "parameters": {"binary_data": V}}]},
    **{f"an input's {name}": {**GOOD, "inputs": [{**IDS, name: V}]} for name in IDS},
    "an input's parameters": {**GOOD, "inputs": [{**IDS, "parameters": V}]},
    "a size": {**GOOD, "inputs": [{**IDS, "shape": [1, V]}]},
    "a size of nothing": {**GOOD, "inputs": [{**TEXT, "shape": [0, V, 2**31 - 1, 2**31 - 1], "data": []}]},
    "sizes of nothing": {**GOOD, "inputs": [{**IDS, "shape": [2**31 - 1, 2**31 - 1, 0, V], "data": []}]},
    **{f"an element of {kind}": {**GOOD, "inputs": [{**IDS, "datatype": kind, "data": [2, V]}]} for kind in _TYPES},
    "a text": {**GOOD, "inputs": [TEXT]},
    "a size of binary data": {
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": V}}]
    },
}


def sent(body: Any, value: str) -> bytes:
    """The body with the value in its place."""
    return json.dumps(body).replace(f'"{V}"', value).encode()


HEADERS = {
    "4000 digits": b"9" * 4000,
    "negative": b"-1",
    "a sign": b"+1",
    "an exponent": b"1e3",
    "hexadecimal": b"0x10",
    "zero": b"0",
    "nothing": b"",
    "two": b"1, 1",
    "another script's digit": "٣".encode(),
    "latin-1": b"\xff",
    "a word": b"a" * 4000,
}
_NAMES = (
    "X-Request-Timeout-Ms",
    "Inference-Header-Content-Length",
    "Content-Type",
    "Content-Encoding",
    "Expect",
    "Authorization",
    "traceparent",
    "tracestate",
    "baggage",
    "Host",
    "TE",
    "Cookie",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("values")
    write_tiny(folder / "tiny", tokenizer=True)
    bundle = write_chat_bundle(folder / "chat")
    with serving(folder, folder / "tiny", bundle.path, "--max-text", "5000") as server:
        yield server


def check(server: Server, path: str, body: Any) -> None:
    for name, value in VALUES.items():
        status, _, answer = server.call("POST", path, sent(body, value), content_type="application/json")
        assert status in (200, 400, 504), (name, answer)
        if status != 200:
            assert error_of(answer), name


@pytest.mark.parametrize("field", PROMPTS)
def test_a_value_in_a_prompt(served: Server, field: str) -> None:
    check(served, "/v2/models/chat/generate", PROMPTS[field])
    check(served, "/v2/models/chat/generate_stream", PROMPTS[field])


@pytest.mark.parametrize("field", TENSORS)
def test_a_value_among_tensors(served: Server, field: str) -> None:
    check(served, "/v2/models/tiny/infer", TENSORS[field])


def test_a_value_where_little_is_asked(served: Server) -> None:
    for path in ("/v2/repository/index", "/v2/repository/models/tiny/load"):
        check(served, path, V)
        check(served, path, {"parameters": V})


#: What must be refused, of what a lenient reader would take.
@pytest.mark.parametrize(
    ("path", "field", "value", "line"),
    [
        ("chat/generate", "temperature", "4000 digits", "temperature must be a number, it is 999"),
        ("chat/generate", "top_p", "4000 digits", "top_p must be a number, it is 999"),
        ("chat/generate", "temperature", "-4000 digits", "temperature must be a number, it is -999"),
        ("chat/generate", "top_k", "a float that is whole", "top_k must be an integer"),
        ("chat/generate", "seed", "true", "seed must be an integer"),
        ("chat/generate", "timeout", "4000 digits", "timeout must be a number of microseconds, it is 999"),
        ("chat/generate", "timeout", "2^63", "the parameter timeout must be a number of microseconds"),
        ("chat/generate", "stream", "a text", "the parameter stream must be true or false"),
        ("chat/generate", "add_special_tokens", "zero", "add_special_tokens must be true or false"),
        ("chat/generate", "parameters", "zero", "parameters must be a JSON object"),
        ("tiny/infer", "timeout", "4000 digits", "timeout must be a number of microseconds, it is 999"),
        ("tiny/infer", "timeout", "true", "timeout must be a number of microseconds, it is True"),
        ("tiny/infer", "labels", "a text", "the parameter labels must be true or false"),
        ("tiny/infer", "parameters", "zero", "the parameters of the request must be a JSON object"),
        ("tiny/infer", "a size of nothing", "2^31 - 1", "shape is too large"),
        ("tiny/infer", "sizes of nothing", "2^31 - 1", "shape is too large"),
    ],
)
def test_what_is_refused(served: Server, path: str, field: str, value: str, line: str) -> None:
    body = (PROMPTS if path == "chat/generate" else TENSORS)[field]
    data = sent(body, VALUES[value])
    status, _, answer = served.call("POST", f"/v2/models/{path}", data, content_type="application/json")
    assert status == 400
    assert line in error_of(answer)


def test_a_timeout_may_be_longer_than_the_servers(served: Server) -> None:
    for path, body in (("chat/generate", PROMPTS["timeout"]), ("tiny/infer", TENSORS["timeout"])):
        data = sent(body, str(2**63 - 1))
        assert served.call("POST", f"/v2/models/{path}", data, content_type="application/json")[0] == 200


@pytest.mark.parametrize("name", _NAMES)
def test_a_value_in_a_header(served: Server, name: str) -> None:
    body = json.dumps(GOOD).encode()
    for what, value in HEADERS.items():
        head = b"POST /v2/models/tiny/infer HTTP/1.1\r\nconnection: close\r\ncontent-length: %d\r\n" % len(body)
        answer = served.raw(head + name.encode() + b": " + value + b"\r\n\r\n" + body)
        status = int(answer.split(b" ")[1])
        assert status in (200, 400, 415, 504), (what, answer)
    assert [line for line in served.log() if line["level"] not in ("info", "warning")] == []  # each line is JSON


def test_texts_of_too_many_characters(served: Server) -> None:
    line = "the request has 5001 characters of text; this server takes 5000"
    prompt = {"text_input": "a" * 5001}
    text: dict[str, Any] = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["é" * 5000, "b"]}
    for path, request in (
        ("chat/generate", prompt),
        ("chat/generate_stream", prompt),
        ("tiny/infer", {"inputs": [text]}),
    ):
        status, _, answer = served.call("POST", f"/v2/models/{path}", request)
        assert (status, error_of(answer)) == (400, line)
    pair = {**text, "shape": [1], "data": ["b" * 2500]}
    paired: Any = {"inputs": [pair, {**pair, "name": "text_pair"}], "parameters": {"task": "sst2"}}
    assert served.call("POST", "/v2/models/tiny/infer", paired)[0] == 200
    pair["data"] = ["b" * 2501]
    assert served.call("POST", "/v2/models/tiny/infer", paired)[0] == 400


def test_a_text_far_beyond_what_a_model_reads_is_soon_refused(tmp_path: Path) -> None:
    """With the limits that a server has by itself; five million characters took it six seconds."""
    write_tiny(tmp_path / "tiny", tokenizer=True)
    text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["good " * 10**6]}
    with serving(tmp_path, tmp_path / "tiny") as server:
        began = time.monotonic()
        status, _, answer = server.call("POST", "/v2/models/tiny/infer", {"inputs": [text]})
        assert status == 400
        assert error_of(answer).endswith("this server takes 262144")
        assert time.monotonic() - began < 3
        wait_for(lambda: server.call("GET", "/v2/health/ready")[0] == 200)


def test_many_parameters_and_deep_json(served: Server) -> None:
    many = {f"p{i}": i for i in range(20_000)}
    status, _, answer = served.call("POST", "/v2/models/chat/generate", {"text_input": "a", "parameters": many})
    assert (status, error_of(answer)[:22]) == (400, "no parameter 'p0'; the")
    deep = b'{"text_input": "a", "parameters": {"stop": ' + b"[" * 90_000 + b"]" * 90_000 + b"}}"
    twice = b'{"text_input": "a", "parameters": {"seed": 1, "seed": 2}}'
    for body, line in ((deep, "nested too deeply"), (twice, "'seed' appears twice")):
        status, _, answer = served.call("POST", "/v2/models/chat/generate", body, content_type="application/json")
        assert status == 400
        assert line in error_of(answer)


def test_the_server_logged_no_traceback(served: Server) -> None:
    warned = {line["event"] for line in served.log() if line["level"] == "warning"}
    assert len(warned) == 1 and "chat template" in warned.pop()  # of the prompts, which have none around them
    assert {line["event"] for line in served.log() if line["level"] == "info"} == {"loaded", "start", "reload"}
    assert {line["level"] for line in served.log()} == {"info", "warning"}
