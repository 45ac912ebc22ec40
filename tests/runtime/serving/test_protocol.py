"""Triton's own client against the server: what it reads is what a session computes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from eptx.runtime import Session
from tests.runtime.serving.servers import Server

IDS = np.array([[2, 5, 7, 3], [2, 6, 8, 3], [2, 10, 5, 3]], np.int64)
TASKS = ["sst2", "mnli", "stsb"]


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url) as client:
        yield client


def tensor(name: str, array: np.ndarray, *, binary: bool = True) -> triton.InferInput:
    kind = "BYTES" if array.dtype == object else {"int64": "INT64", "int32": "INT32"}[array.dtype.name]
    return triton.InferInput(name, list(array.shape), kind).set_data_from_numpy(array, binary_data=binary)


def texts(name: str, *values: str, binary: bool = True) -> triton.InferInput:
    return tensor(name, np.array([value.encode() for value in values], object), binary=binary)


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata()["name"] == "eptx"
    model = client.get_model_metadata("tiny", "1")
    assert model["inputs"][0] == {"name": "input_ids", "datatype": "INT64", "shape": [-1, -1]}
    assert {"name": "logits", "datatype": "FP32", "shape": [-1, 3]} in model["outputs"]
    assert model["parameters"]["tasks"] == ["sst2", "mnli", "stsb", "base"]
    assert model["parameters"]["labels"] == {
        "sst2": ["negative", "positive"],
        "mnli": ["entailment", "neutral", "contradiction"],
        "stsb": 1,
    }
    assert {entry["name"] for entry in client.get_model_repository_index()} == {
        *("tiny", "open", "narrow", "static", "dynamic")
    }


@pytest.mark.parametrize("binary", [True, False])
def test_tensors_are_answered_bit_for_bit(client: triton.InferenceServerClient, session: Session, binary: bool) -> None:
    expected = session.run({"input_ids": IDS}, TASKS)
    names = list(expected)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    inputs = [tensor("input_ids", IDS, binary=binary), texts("task", *TASKS, binary=binary)]
    result = client.infer("tiny", inputs, outputs=wanted, request_id="seven")
    assert result.get_response()["id"] == "seven"
    for name in names:
        np.testing.assert_array_equal(result.as_numpy(name), expected[name], strict=True)


def test_without_outputs_all_of_the_graph_come_in_binary(
    client: triton.InferenceServerClient, session: Session
) -> None:
    mask = np.array([[1, 1, 1, 0]] * 3, np.int64)
    inputs = [tensor("input_ids", IDS.astype(np.int32)), tensor("attention_mask", mask)]
    result = client.infer("tiny", inputs, parameters={"tasks": "sst2,mnli,stsb"}, model_version="1")
    expected = session.run({"input_ids": IDS, "attention_mask": mask}, TASKS)
    assert [entry["name"] for entry in result.get_response()["outputs"]] == list(expected)
    for name in expected:
        np.testing.assert_array_equal(result.as_numpy(name), expected[name], strict=True)


def test_text_in_labels_out(client: triton.InferenceServerClient, session: Session) -> None:
    words = ["a good film", "the book is bad", "not good"]
    expected = session.run(words, TASKS)
    result = client.infer("tiny", [texts("text", *words), texts("task", *TASKS)])
    assert [label.decode() for label in result.as_numpy("label")] == [str(label) for label in expected.labels]
    assert [task.decode() for task in result.as_numpy("task")] == TASKS
    assert [entry["name"] for entry in result.get_response()["outputs"]] == ["label", "score", "task", "logits"]
    np.testing.assert_array_equal(result.as_numpy("logits"), expected["logits"], strict=True)
    sst2, mnli = (
        np.exp(row[:n]) / np.exp(row[:n]).sum() for row, n in zip(expected["logits"][:2], (2, 3), strict=True)
    )
    np.testing.assert_allclose(result.as_numpy("score"), [sst2.max(), mnli.max(), np.nan], rtol=1e-5)


def test_pairs_of_texts(client: triton.InferenceServerClient, session: Session) -> None:
    pairs = [("a film", "the book is not good"), ("good", "bad")]
    inputs = [texts("text", *(a for a, _ in pairs)), texts("text_pair", *(b for _, b in pairs))]
    result = client.infer("tiny", inputs, parameters={"task": "mnli"})
    np.testing.assert_array_equal(result.as_numpy("logits"), session.run(pairs, "mnli")["logits"], strict=True)


def test_single_texts_and_pairs_in_one_request(client: triton.InferenceServerClient, session: Session) -> None:
    inputs = [texts("text", "a good film", "good"), texts("text_pair", "", "bad")]
    result = client.infer("tiny", inputs, parameters={"tasks": "sst2,mnli"})
    expected = session.run(["a good film", ("good", "bad")], ["sst2", "mnli"])["logits"]
    np.testing.assert_array_equal(result.as_numpy("logits"), expected, strict=True)
    np.testing.assert_allclose(expected[0], session.run("a good film", "sst2")["logits"][0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task", [{"task": "mnli"}, {"tasks": ["mnli", "mnli"]}, {"tasks": "mnli, mnli"}])
def test_ways_to_name_a_task(server: Server, task: dict[str, object]) -> None:
    request = {"inputs": [{"name": "input_ids", "datatype": "INT64", "shape": [2, 2], "data": [[2, 5], [2, 6]]}]}
    outputs = [{"name": "label"}, {"name": "task"}]
    status, answer = server.infer({**request, "parameters": task, "outputs": outputs})
    assert status == 200
    assert answer["outputs"][1]["data"] == ["mnli", "mnli"]
    by_id = {"name": "task_id", "datatype": "INT32", "shape": [2], "data": [1, 1]}
    status, same = server.infer({"inputs": [*request["inputs"], by_id], "outputs": outputs})
    assert status == 200
    assert same == answer


def test_labels_as_a_parameter(client: triton.InferenceServerClient, session: Session) -> None:
    parameters = {"tasks": ",".join(TASKS), "labels": True}
    result = client.infer("tiny", [tensor("input_ids", IDS)], parameters=parameters)
    expected = session.run({"input_ids": IDS}, TASKS)
    assert [label.decode() for label in result.as_numpy("label")] == [str(label) for label in expected.labels]
    np.testing.assert_array_equal(result.as_numpy("logits"), expected["logits"], strict=True)


def test_a_static_bundle_needs_no_task_and_a_dynamic_one_infers_it(server: Server) -> None:
    text = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["good"]}]}
    assert server.infer(text, "static")[1]["outputs"][2] == {
        "name": "task",
        "datatype": "BYTES",
        "shape": [1],
        "data": ["mnli"],
    }
    status, answer = server.infer(text, "dynamic")
    assert (status, answer["outputs"][2]["data"]) == (200, ["sst2"])


def test_requests_of_different_tasks_and_lengths_share_runs(server: Server, folder: Path, session: Session) -> None:
    rng = np.random.default_rng(0)
    rows = [(rng.integers(2, 12, (1, n)), task) for n in (3, 5, 6, 4, 6, 5, 3, 4) for task in TASKS]
    before = server.metric("eptx_batch_rows_count", model="tiny")

    def ask(row: tuple[np.ndarray, str]) -> dict[str, object]:
        ids, task = row
        entry = {"name": "input_ids", "datatype": "INT64", "shape": list(ids.shape), "data": ids.tolist()}
        status, answer = server.infer({"inputs": [entry], "parameters": {"task": task}})
        assert status == 200, answer
        return {output["name"]: output for output in answer["outputs"]}

    with ThreadPoolExecutor(len(rows)) as pool:
        answers = list(pool.map(ask, rows))
    for (ids, task), answer in zip(rows, answers, strict=True):
        expected = session.run({"input_ids": ids}, task)
        for name, array in expected.items():
            assert answer[name]["shape"] == list(array.shape)
            np.testing.assert_allclose(np.reshape(answer[name]["data"], array.shape), array, rtol=1e-5, atol=1e-6)
    assert server.metric("eptx_batch_rows_count", model="tiny") - before < len(rows) / 2


def test_triton_names_the_error(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="no task 'sst3'; did you mean 'sst2'") as caught:
        client.infer("tiny", [tensor("input_ids", IDS)], parameters={"task": "sst3"})
    assert caught.value.status() == "400"
    with pytest.raises(InferenceServerException, match="no model 'tiny' of version '2'"):
        client.infer("tiny", [tensor("input_ids", IDS)], model_version="2")


def test_metrics_and_logs(server: Server) -> None:
    entry = {"name": "input_ids", "datatype": "INT64", "shape": [1, 2], "data": [2, 5]}
    assert server.infer({"inputs": [entry], "parameters": {"task": "sst2"}})[0] == 200
    assert server.metric("eptx_requests_total", model="tiny", verb="infer", code="200") >= 1
    assert server.metric("eptx_rows_total", model="tiny", task="sst2", provider="cpu") >= 1
    assert server.metric("eptx_request_seconds_count", model="tiny", task="sst2", provider="cpu") >= 1
    assert server.metric("eptx_queue_rows", model="tiny") == 0
    events = {line["event"]: line for line in reversed(server.log())}
    assert [line["event"] for line in server.log()][:6] == ["loaded"] * 5 + ["start"]
    loaded = events["loaded"]
    assert (loaded["model"], loaded["provider"], loaded["provider_reason"], loaded["nodes"]) == (
        "tiny",
        "cpu",
        None,
        None,
    )
    assert set(loaded["kernels"]) == {"running", "reason"}
    assert any(line["event"] == "request" and line["verb"] == "infer" for line in server.log())


def test_metadata_is_json_for_any_client(server: Server) -> None:
    status, headers, body = server.call("GET", "/v2/models/tiny/versions/1")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body)["versions"] == ["1"]
