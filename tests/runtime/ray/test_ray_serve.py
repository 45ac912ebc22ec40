"""Ray Serve on this machine: the example's configuration, replicas that die or go, and more bundles than fit."""

from __future__ import annotations

import asyncio
import copy
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from eptx.errors import UsageError
from eptx.runtime import Session
from tests.support.chat import write_chat_bundle
from tests.support.tiny_bundle import LABELS, write_tiny

pytest.importorskip("ray.serve", reason="Ray is not installed: pip install 'eptx[ray]'")
psutil = pytest.importorskip("psutil")
yaml = pytest.importorskip("yaml")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's, of how it uses pydantic
    from eptx.runtime.ray_serve import Settings, build
    from eptx.runtime.ray_serve.retry import RetryMiddleware

EXAMPLE = Path(__file__).parents[3] / "examples" / "ray_serve" / "serve.yaml"
TASKS = ("sst2", "mnli", "stsb")
WORDS = ("a good film", "the book is not bad", "bad", "good good film is the film", "not a film")


class Cluster:
    """A running cluster: what is deployed, and calls of it."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, config: dict[str, Any]) -> None:
        self.process, self.folder, self.config = process, folder, config
        self.port = config["http_options"]["port"]

    def deploy(self, config: dict[str, Any]) -> None:
        """Deploys a configuration, and waits until it is what runs."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(config), file=self.process.stdin, flush=True)
        assert "ready\n" in iter(self.process.stdout.readline, ""), "it was not deployed"

    def call(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """One request on a connection of its own: status and answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", path, data, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def replicas(self, deployment: str = "eptx:Bundles") -> list[Any]:
        """The processes of a deployment's replicas."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in below if f"ray::ServeReplica:{deployment}" in _command(process)]

    def logs(self, of: str, text: str) -> int:
        """The processes that have logged some text; those of replicas are named by application and deployment."""
        logs = self.folder.glob(f"session_latest/logs/serve/{of}_*.log")
        return sum(text in log.read_text() for log in logs)


def _command(process: Any) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just gone
        return ""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="eptx") as folder:  # sockets lie in it, whose paths must be short
        yield Path(folder)


@pytest.fixture(scope="module")
def bundles(folder: Path) -> dict[str, Path]:
    for i, name in enumerate(("minilm", "one", "two", "three")):
        write_tiny(folder / name, tokenizer=True, generator=f"test {i}")
    write_chat_bundle(folder / "chat", tasks=("kind", "rude"))
    return {name: folder / name for name in ("minilm", "one", "two", "three", "chat")}


@pytest.fixture(scope="module")
def cluster(folder: Path, bundles: dict[str, Path]) -> Iterator[Cluster]:
    """The example's application, and one with more bundles than a replica holds."""
    command = [sys.executable, "-m", "tests.runtime.ray.cluster", str(folder)]
    log = folder / "log"
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True)
    try:
        it = Cluster(process, folder, configuration(bundles))
        it.deploy(it.config)
        yield it
    finally:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        try:
            code = process.wait(30)
        finally:
            process.kill()
        process.stdout.close()
        assert code == 0, log.read_text()


def configuration(bundles: dict[str, Path]) -> dict[str, Any]:
    config = yaml.safe_load(EXAMPLE.read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        config["http_options"]["port"] = free.getsockname()[1]
    (app,) = config["applications"]
    assert list(app["args"]["bundles"]) == ["minilm"]
    app["args"] |= {"bundles": {name: str(bundles[name]) for name in ("minilm", "chat")}, "threads": 1}
    app["args"]["limits"]["max_delay"] = 0.25  # so that requests can be caught in a replica's queue
    many = copy.deepcopy(app) | {"name": "many", "route_prefix": "/many"}
    many["args"] |= {"bundles": {name: str(bundles[name]) for name in ("one", "two", "three")}, "models_per_replica": 2}
    many["deployments"] = [{"name": "Bundles", "ray_actor_options": {"num_cpus": 0}}]
    config["applications"].append(many)
    return config


@pytest.fixture(scope="module")
def expected(bundles: dict[str, Path]) -> dict[tuple[str, str], np.ndarray]:
    """What one session answers to each text and task."""
    session = Session(bundles["minilm"], threads=1)
    return {(text, task): session.run(text, task=task)["logits"][0] for text in WORDS for task in TASKS}


def request(text: str, task: str) -> dict[str, Any]:
    return {
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}],
        "parameters": {"task": task},
        "outputs": [{"name": "logits"}, {"name": "task"}],
    }


def check(answer: tuple[int, Any], expected: np.ndarray, task: str) -> None:
    status, body = answer
    assert status == 200, body
    logits, named = body["outputs"]
    assert named["data"] == [task]
    np.testing.assert_allclose(logits["data"], expected, rtol=1e-5, atol=1e-6)


def load(cluster: Cluster, expected: dict[tuple[str, str], np.ndarray], stop: threading.Event) -> int:
    """Asks for all texts and tasks again and again, and checks each answer; how many there were."""
    count = 0
    while not stop.is_set():
        for (text, task), logits in expected.items():
            check(cluster.call("/v2/models/minilm/infer", request(text, task)), logits, task)
            count += 1
    return count


def test_replicas_answer_as_one_session(
    cluster: Cluster, bundles: dict[str, Path], expected: dict[tuple[str, str], np.ndarray]
) -> None:
    assert len(cluster.replicas()) == 2
    asked = list(expected) * 4  # of all tasks, at the same time
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda row: cluster.call("/v2/models/minilm/infer", request(*row)), asked)
        for (text, task), answer in zip(asked, answers, strict=True):
            check(answer, expected[text, task], task)
    texts, tasks = zip(*expected, strict=True)
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    status, body = cluster.call("/v2/models/minilm/infer", {"inputs": [tensor], "parameters": {"tasks": tasks}})
    assert status == 200
    by_name = {output["name"]: output["data"] for output in body["outputs"]}
    logits = Session(bundles["minilm"], threads=1).run(list(texts), task=list(tasks))["logits"]
    assert np.array_equal(np.reshape(by_name["logits"], (-1, LABELS)).astype(np.float32), logits)  # the same batch
    assert cluster.logs("replica_eptx_Bundles", "CALL infer OK") == 2


@pytest.mark.parametrize(
    ("deployment", "notices", "says"),
    [
        ("eptx:Bundles", "replica_eptx_Front", "its request goes to another one"),
        ("eptx:Front", "proxy", "Request failed: The actor died"),
    ],
)
def test_killed_process_loses_no_request(
    cluster: Cluster, expected: dict[tuple[str, str], np.ndarray], deployment: str, notices: str, says: str
) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor(6) as pool:
        loads = [pool.submit(load, cluster, expected, stop) for _ in range(6)]
        try:
            time.sleep(0.6)
            wait_for(lambda: cluster.replicas(f"{deployment}.handle_request"))  # Ray says so of those that have some
            cluster.replicas(f"{deployment}.handle_request")[-1].kill()
            wait_for(lambda: cluster.logs(notices, says) or any(each.done() for each in loads))
        finally:
            stop.set()
    assert all(each.result() for each in loads)
    assert cluster.logs(notices, says)  # it had accepted requests


@pytest.mark.parametrize("sent", [0, 1, 2, 3])
def test_an_answer_that_broke_off_before_its_body_is_asked_for_again(sent: int) -> None:
    asked: list[bytes] = []
    answer: list[Any] = [
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": b"an", "more_body": True},
        {"type": "http.response.body", "body": b"swer"},
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append((await receive())["body"])
        for message in answer[: sent if len(asked) == 1 else None]:  # the first process dies
            await send(message)

    got = asyncio.run(_through(RetryMiddleware(app), b"request"))
    assert asked == [b"request"] * (2 if sent < 2 else 1)
    assert got == (answer if sent != 2 else answer[:2])  # what the client has seen a part of is not sent again


async def _through(app: Any, body: bytes) -> list[Any]:
    """What an application sends for one request."""
    got: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        got.append(message)

    await app({"type": "http", "path": "/v2/models/minilm/infer"}, receive, send)
    return got


def test_http_is_that_of_eptx_serve(cluster: Cluster) -> None:
    assert cluster.call("/v2/health/ready") == (200, {"ready": True})
    status, metadata = cluster.call("/v2/models/minilm")
    assert (status, metadata["name"], metadata["parameters"]["tasks"][:2]) == (200, "minilm", ["sst2", "mnli"])
    assert cluster.call("/v2/models/other")[0] == 404
    assert cluster.call("/v2/models/minilm/infer", request("a", "xyz")) == (
        400,
        {"error": "no task 'xyz'; this bundle has sst2, mnli, stsb, base"},
    )
    assert cluster.call("/v2/models/minilm/generate_stream", {"text_input": "a"})[0] == 400
    assert cluster.call("/v2/models/minilm/infer", request("a", "sst2") | {"id": "x" * (17 << 20)})[0] == 413


def test_openais_clients_ask_replicas(cluster: Cluster, bundles: dict[str, Path]) -> None:
    messages = [{"role": "user", "content": "Is it raining?"}]
    made = Session(bundles["chat"], threads=1).chat(messages, "rude", max_new_tokens=9).texts[0]
    with openai.OpenAI(base_url=f"http://127.0.0.1:{cluster.port}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["chat:kind", "chat:rude", "chat:base"]
        given = {"model": "chat:rude", "messages": messages, "max_tokens": 9}
        assert client.chat.completions.create(**given).choices[0].message.content == made
        stream = client.chat.completions.create(**given, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == made
        for stream in (True, False):
            with pytest.raises(openai.NotFoundError) as caught:
                client.chat.completions.create(**{**given, "model": "chat:polite"}, stream=stream)
            assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    status, body = cluster.call("/many/v1/completions", {"model": "one", "prompt": "a"})
    assert (status, body["error"]["code"]) == (404, "model_not_found")


def test_more_bundles_than_a_replica_holds(cluster: Cluster, bundles: dict[str, Path]) -> None:
    session = Session(bundles["one"], threads=1)
    logits = session.run("a good film", task="sst2")["logits"][0]
    names = ["one", "two", "three"] * 6  # each change takes the place of a bundle that others ask for
    with ThreadPoolExecutor(6) as pool:
        path = "/many/v2/models/{}/infer".format
        for answer in pool.map(lambda name: cluster.call(path(name), request("a good film", "sst2")), names):
            check(answer, logits, "sst2")


def test_replaced_bundle_is_loaded_by_every_replica(cluster: Cluster, bundles: dict[str, Path]) -> None:
    write_tiny(bundles["three"], "static", tokenizer=True)
    assert cluster.call("/many/v2/repository/models/three/load", {}) == (200, {})
    metadata = cluster.call("/many/v2/models/three")[1]
    assert metadata["parameters"]["mode"] == "static"


def test_replica_that_is_stopped_answers_what_it_accepted(
    cluster: Cluster, expected: dict[tuple[str, str], np.ndarray]
) -> None:
    config = copy.deepcopy(cluster.config)
    (replicas,) = (one for one in config["applications"][0]["deployments"] if one["name"] == "Bundles")
    replicas["autoscaling_config"] |= {"min_replicas": 1, "max_replicas": 1}
    wait_for(lambda: len(cluster.replicas()) == 2)  # again, after one was killed
    stop = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, cluster, expected, stop) for _ in range(4)]
        try:
            cluster.deploy(config)
            wait_for(lambda: len(cluster.replicas()) == 1)
        finally:
            stop.set()
    assert all(each.result() for each in loads)


def test_settings_say_what_is_wrong(bundles: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="modles_per_replica"):
        Settings.model_validate({"bundles": bundles, "modles_per_replica": 1})
    with pytest.raises(ValueError, match=r"limits\.max_bach"):
        build({"bundles": bundles, "limits": {"max_bach": 8}})
    with pytest.raises(UsageError, match="max_batch must be at least 1"):
        build({"bundles": bundles, "limits": {"max_batch": 0}})
    with pytest.raises(ValueError, match="bundles"):
        build({"bundles": {}})


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
