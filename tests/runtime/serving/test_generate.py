"""Answers of a language model over HTTP, whole and as server-sent events."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from eptx.files.strict_json import dump_json
from eptx.runtime import Session
from tests.runtime.serving.servers import Server, read_all, serving, wait_for
from tests.support.decoders import write_decoder_bundle

PROMPT = "w5 w9 w11"
GREEDY = {"task": "task1", "max_tokens": 12}
TEXTS = ["w5 w9 w11", "w7 w8", "w50 w51 w52 w53 w54", "w20"]
TASKS = ["task0", "task1", "task2", "base"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder_bundle(tmp_path_factory.mktemp("decoder") / "writer").path


@pytest.fixture(scope="module")
def narrow(bundle: Path) -> Path:
    """The same bundle, of which the task ``base`` has fewer tokens."""
    folder = Path(shutil.copytree(bundle, bundle.parent / "narrow"))
    said = json.loads((folder / "eptx.json").read_text())
    next(task for task in said["tasks"] if task["name"] == "base")["vocab_size"] = 60
    (folder / "eptx.json").write_bytes(dump_json(said))
    return folder


@pytest.fixture(scope="module")
def writer(bundle: Path, narrow: Path) -> Iterator[Server]:
    with serving(bundle.parent, bundle, narrow, "--log-level", "debug") as server:
        yield server


@pytest.fixture(scope="module")
def gathering(bundle: Path) -> Iterator[Server]:
    """A server that waits for four prompts before it begins a batch."""
    with serving(bundle.parent, bundle, "--generations", "4", "--max-delay-ms", "20000") as server:
        yield server


@pytest.fixture(scope="module")
def session(bundle: Path) -> Session:
    return Session(bundle, threads=1)


def ask(server: Server, parameters: dict[str, Any], verb: str = "generate", text: Any = PROMPT) -> tuple[int, bytes]:
    request = {"text_input": text, "parameters": parameters, "id": "seven"}
    status, _, body = server.call("POST", f"/v2/models/writer/{verb}", request)
    return status, body


def events(body: bytes) -> list[Any]:
    lines = body.decode().split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.mark.parametrize(
    "parameters",
    [
        GREEDY,
        {"task": "task2", "max_tokens": 8, "temperature": 0.8, "top_k": 20, "top_p": 0.9, "seed": 3},
        {"task": "base", "max_tokens": 5, "stop": ["w7"]},
    ],
)
def test_an_answer_is_that_of_the_session(writer: Server, session: Session, parameters: dict[str, Any]) -> None:
    settings = {name: value for name, value in parameters.items() if name not in ("task", "max_tokens")}
    expected = session.generate(PROMPT, parameters["task"], max_new_tokens=parameters["max_tokens"], **settings)
    status, body = ask(writer, parameters)
    assert status == 200
    details = {"finish_reason": expected.finish_reasons[0], "tokens": len(expected.token_ids[0])}
    named = {"model_name": "writer", "model_version": "1", "id": "seven"}
    assert json.loads(body) == {**named, "text_output": expected.texts[0], "details": details}


def test_events_join_to_the_answer(writer: Server, session: Session) -> None:
    expected = session.generate(PROMPT, "task1", max_new_tokens=12)
    status, body = ask(writer, GREEDY, "generate_stream")
    pieces = events(body)
    assert status == 200
    assert "".join(piece["text_output"] for piece in pieces) == expected.texts[0]
    assert len(pieces) == len(expected.token_ids[0])
    assert [piece for piece in pieces if "details" in piece] == pieces[-1:]
    assert pieces[-1]["details"]["finish_reason"] == expected.finish_reasons[0]


@pytest.mark.parametrize("verb", ["generate", "generate_stream"])
@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ({"task": "task9"}, "no task 'task9'"),
        ({**GREEDY, "temperature": -1}, "temperature must not be negative"),
        ({**GREEDY, "max_tokens": 10**6}, "more do not fit"),
        ({**GREEDY, "max_tokens": 1.5}, "max_new_tokens must be an integer"),
        ({**GREEDY, "beams": 4}, "no parameter 'beams'; there are max_tokens"),
        ({**GREEDY, "stop": 3}, "stop must be a text or a list of texts"),
        ({**GREEDY, "task": ["task1"]}, "the parameter task must be a text"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_event(
    writer: Server, verb: str, parameters: dict[str, Any], line: str
) -> None:
    status, body = ask(writer, parameters, verb)
    assert status == 400
    assert line in json.loads(body)["error"]
    assert ask(writer, GREEDY)[0] == 200


@pytest.mark.parametrize("verb", ["generate", "generate_stream"])
def test_a_token_that_the_task_lacks(writer: Server, verb: str) -> None:
    def answer(task: str, text: str) -> tuple[int, bytes]:
        request = {"text_input": text, "parameters": {"task": task, "max_tokens": 2}}
        status, _, body = writer.call("POST", f"/v2/models/narrow/{verb}", request)
        return status, body

    status, body = answer("base", "w5 w65")
    assert (status, json.loads(body)["error"]) == (
        400,
        "prompt 0 has token 65 at 1; task base has token ids 0 to 59",
    )
    assert answer("base", "w5 w50")[0] == answer("task1", "w5 w65")[0] == 200


def test_a_prompt_must_be_a_text(writer: Server) -> None:
    status, body = ask(writer, GREEDY, text=["w1"])
    assert (status, json.loads(body)["error"]) == (
        400,
        "the request must be a JSON object with a text_input, or with inputs by name",
    )


def test_a_client_that_leaves_ends_its_answer(writer: Server) -> None:
    body = json.dumps({"text_input": PROMPT, "parameters": {"task": "task1", "max_tokens": 200, "timeout": 10**7}})
    head = "POST /v2/models/writer/generate_stream HTTP/1.1\r\nhost: x\r\ncontent-length: "
    made = []
    for _ in range(5):  # on a busy machine the answer may be whole before the server sees that nobody reads it
        before = writer.metric("eptx_generated_tokens_total")
        with writer.connect() as connection:
            connection.sendall(f"{head}{len(body)}\r\n\r\n{body}".encode())
            assert b"text/event-stream" in connection.recv(300)
        made.append(wait_for(lambda: writer.metric("eptx_generated_tokens_total") - before))  # noqa: B023
    assert min(made) < 200


def test_a_deadline_ends_an_answer(writer: Server) -> None:
    long = {"task": "task1", "max_tokens": 240, "timeout": 20_000}
    assert ask(writer, long)[0] == 504
    status, body = ask(writer, long, "generate_stream")
    assert (status, "deadline" in events(body)[-1]["error"]) == (200, True) if status == 200 else status == 504


def test_prompts_of_several_tasks_leave_in_one_batch(gathering: Server, session: Session) -> None:
    most = [3, 12, 8, 10]
    pieces = list(session.stream(TEXTS, TASKS, max_new_tokens=12))
    rows = [[piece for piece in pieces if piece.row == row][:length] for row, length in enumerate(most)]
    before = gathering.metric("eptx_generation_rows_count"), gathering.metric("eptx_generation_rows_sum")
    parameters = [{"task": task, "max_tokens": length} for task, length in zip(TASKS, most, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        verbs = ["generate", "generate_stream"] * 2
        answers = list(pool.map(lambda *given: ask(gathering, *given), parameters, verbs, TEXTS))
    bodies = [body for _, body in answers]
    made = [[json.loads(bodies[0])], events(bodies[1]), [json.loads(bodies[2])], events(bodies[3])]
    assert ["".join(piece["text_output"] for piece in row) for row in made] == [
        "".join(piece.text for piece in row) for row in rows
    ]
    assert [row[-1]["details"]["tokens"] for row in made] == [len(row) for row in rows]
    after = gathering.metric("eptx_generation_rows_count"), gathering.metric("eptx_generation_rows_sum")
    assert (after[0] - before[0], after[1] - before[1]) == (1, 4)
    assert gathering.metric("eptx_queue_rows") == 0


def test_the_neighbours_of_a_bad_prompt_are_answered(gathering: Server, session: Session) -> None:
    """Two that are refused when they come, so that they take no place in the batch: GenAI takes w0 for padding."""
    texts, tasks = [*TEXTS, "w5 w0"], [*TASKS, "task0"]
    with ThreadPoolExecutor(5) as pool:
        asked = [
            pool.submit(ask, gathering, {**GREEDY, "task": task}, text=text)
            for text, task in zip(texts, tasks, strict=True)
        ]
        assert ask(gathering, {**GREEDY, "task": "task9"})[0] == 400
    answers = [future.result() for future in asked]
    assert [status for status, _ in answers] == [200, 200, 200, 200, 400]
    assert json.loads(answers[4][1])["error"].startswith("prompt 0 ends in token 0, which this bundle pads with")
    for (_, body), text, task in zip(answers[:4], TEXTS, TASKS, strict=True):
        assert json.loads(body)["text_output"] == session.generate(text, task, max_new_tokens=12).texts[0]


def test_a_client_that_leaves_a_batch_is_no_matter_to_the_others(gathering: Server, session: Session) -> None:
    body = json.dumps({"text_input": PROMPT, "parameters": {"task": "task1", "max_tokens": 200}})
    head = "POST /v2/models/writer/generate_stream HTTP/1.1\r\nhost: x\r\ncontent-length: "
    with ThreadPoolExecutor(3) as pool, gathering.connect() as connection:
        connection.sendall(f"{head}{len(body)}\r\n\r\n{body}".encode())
        others = [pool.submit(ask, gathering, {"task": task, "max_tokens": 200}, text=PROMPT) for task in TASKS[:3]]
        assert b"text/event-stream" in connection.recv(300)
        connection.close()
        answers = [json.loads(other.result()[1]) for other in others]
    expected = session.generate([PROMPT] * 3, TASKS[:3], max_new_tokens=200)
    assert [answer["text_output"] for answer in answers] == list(expected.texts)


def test_a_full_queue_and_the_end_of_a_server_that_holds_it(bundle: Path, session: Session) -> None:
    limits = ["--queue", "3", "--max-batch", "3", "--generations", "4", "--max-delay-ms", "3000"]
    with serving(bundle.parent, bundle, *limits) as server, ThreadPoolExecutor(3) as pool:
        parameters = [{"task": task, "max_tokens": 200} for task in TASKS[:3]]
        asked: list[Future[tuple[int, bytes]]] = [pool.submit(ask, server, given) for given in parameters]
        wait_for(lambda: server.metric("eptx_queue_rows") == 3)
        status, headers, body = server.call(
            "POST", "/v2/models/writer/generate", {"text_input": "w5", "parameters": GREEDY}
        )
        assert (status, headers["retry-after"]) == (429, "1")
        assert json.loads(body)["error"].startswith("the queue is full: 3 prompts wait")
        assert server.stop() == 0
        answers = [json.loads(future.result()[1]) for future in asked]
    expected = session.generate([PROMPT] * 3, TASKS[:3], max_new_tokens=200)
    assert [answer["text_output"] for answer in answers] == list(expected.texts)


def test_a_classifier_does_not_generate(server: Server) -> None:
    status, _, body = server.call("POST", "/v2/models/tiny/generate", {"text_input": "good"})
    assert (status, json.loads(body)["error"]) == (400, "this bundle does not generate text; send it to infer")


def test_the_logits_of_a_language_model_are_there_too(writer: Server, session: Session) -> None:
    tensor = {"name": "input_ids", "datatype": "INT64", "shape": [1, 3], "data": [5, 9, 11]}
    request = {"inputs": [tensor], "parameters": {"task": "task1"}, "outputs": [{"name": "logits"}]}
    status, answer = writer.infer(request, "writer")
    assert status == 200
    expected = session.run({"input_ids": [[5, 9, 11]]}, "task1")["logits"]
    assert answer["outputs"][0]["shape"] == list(expected.shape)
    assert answer["outputs"][0]["data"] == expected.ravel().tolist()


def test_sigterm_waits_for_the_end_of_an_answer(bundle: Path) -> None:
    body = json.dumps({"text_input": PROMPT, "parameters": {"task": "task1", "max_tokens": 200}}).encode()
    head = b"POST /v2/models/writer/generate_stream HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    with serving(bundle.parent, bundle) as server, server.connect() as connection:
        connection.sendall(head + body)
        first = connection.recv(200)
        assert server.stop() == 0
        assert b'"details":{"finish_reason":' in first + read_all(connection)
