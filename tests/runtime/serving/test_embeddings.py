"""``/v1/embeddings`` as OpenAI's own client asks for it, against a server's process."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from eptx.runtime import Session
from tests.runtime.serving.servers import Server, serving
from tests.support.sentences import TEXTS, encoded, write_embedder

MOST = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder, and a bundle of it with the task ``own``."""
    return write_embedder(tmp_path_factory.mktemp("embeddings"))[1].parent


@pytest.fixture(scope="module")
def embedder(folder: Path) -> Iterator[Server]:
    (folder / "token").write_text("secret\n")
    with serving(folder, folder / "bundle", "--max-batch", "4", "--token-file", folder / "token") as server:
        yield server


@pytest.fixture(scope="module")
def client(embedder: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://{embedder.url}/v1", api_key="secret", max_retries=0) as client:
        yield client


def numbers(answer: Any) -> np.ndarray:
    assert [each.index for each in answer.data] == list(range(len(answer.data)))
    return np.array([each.embedding for each in answer.data], np.float32)


@pytest.mark.parametrize("form", [None, "float", "base64"])
def test_texts(client: openai.OpenAI, folder: Path, form: Any) -> None:
    wanted = encoded(folder / "base", TEXTS, normalize_embeddings=True)
    asked: dict[str, Any] = {} if form is None else {"encoding_format": form}
    answer = client.embeddings.create(model="bundle", input=TEXTS, **asked)
    found: list[Any] = [each.embedding for each in answer.data]
    if form == "base64":  # else the client reads it by itself
        found = [np.frombuffer(base64.b64decode(each), "<f4") for each in found]
    np.testing.assert_allclose(np.array(found, np.float32), wanted, atol=MOST)
    ids = Session(folder / "bundle").tokenizer.encode(TEXTS)
    assert (answer.model, answer.usage.prompt_tokens) == ("bundle", sum(map(len, ids)))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens
    alone = client.embeddings.create(model="bundle", input=TEXTS[2])
    np.testing.assert_allclose(numbers(alone), wanted[2:3], atol=MOST)


def test_token_ids(client: openai.OpenAI, folder: Path) -> None:
    ids = Session(folder / "bundle").tokenizer.encode(TEXTS)
    wanted = encoded(folder / "base", TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(numbers(client.embeddings.create(model="bundle", input=ids)), wanted, atol=MOST)
    np.testing.assert_allclose(numbers(client.embeddings.create(model="bundle", input=ids[0])), wanted[:1], atol=MOST)


def test_a_task_and_dimensions(client: openai.OpenAI, folder: Path) -> None:
    session = Session(folder / "bundle", provider="cpu")
    answer = client.embeddings.create(model="bundle:own", input=TEXTS, dimensions=7)
    np.testing.assert_allclose(numbers(answer), session.embed(TEXTS, "own", dimensions=7), atol=MOST)
    assert answer.model == "bundle:own"


def test_many_inputs_and_many_requests(client: openai.OpenAI, folder: Path) -> None:
    """More rows than one run takes, in order, from several threads."""
    texts = TEXTS * 9
    wanted = np.tile(encoded(folder / "base", TEXTS, normalize_embeddings=True), (9, 1))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: numbers(client.embeddings.create(model="bundle", input=texts)), range(4)))
    for found in answers:
        np.testing.assert_allclose(found, wanted, atol=MOST)


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ({"model": "other"}, 404, "no model 'other'; there are bundle"),
        ({"model": "bundle:other"}, 400, "no task 'other'"),
        ({"dimensions": 33}, 400, "dimensions must be 1 to 32, not 33"),
        ({"input": []}, 400, "input must be a text"),
        ({"input": [[1, 2], "a"]}, 400, "input must be a text"),
        ({"input": [["a"]]}, 400, "input must be a text"),
        ({"input": [10**6]}, 400, "token ids are 0 to 119"),
        ({"input": [[5] * 97]}, 400, "the model reads at most 96"),
        ({"input": ["a"] * 2049}, 400, "input has 2049 entries; one request may have 2048"),
        ({"encoding_format": "int8"}, 400, "encoding_format must be float or base64"),
        ({"extra_body": {"truncate": True}}, 400, "no field 'truncate'"),
    ],
)
def test_refusals(client: openai.OpenAI, given: dict[str, Any], status: int, said: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.embeddings.create(**{"model": "bundle", "input": "a", "encoding_format": "float", **given})
    assert caught.value.status_code == status and said in caught.value.message
    assert caught.value.type == "invalid_request_error" and isinstance(caught.value.body, dict)


def test_other_refusals(client: openai.OpenAI, embedder: Server) -> None:
    with pytest.raises(openai.AuthenticationError, match="send a token"):
        client.with_options(api_key="wrong").embeddings.create(model="bundle", input="a")
    for path, status in (("/v1/other", 404), ("/v1/embeddings", 405)):
        answer = embedder.call("GET", path, authorization="Bearer secret")
        assert answer[0] == status and b'"type":"invalid_request_error"' in answer[2]
    answer = embedder.call("POST", "/v1/embeddings", {"model": "bundle"}, authorization="Bearer secret")
    assert answer[0] == 400 and b"input must be a text" in answer[2]


def test_infer_has_the_output(embedder: Server, folder: Path) -> None:
    request = {
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [4], "data": TEXTS[:4]}],
        "outputs": [{"name": "embedding"}],
        "parameters": {"task": "base"},
    }
    status, answer = embedder.infer(request, "bundle", authorization="Bearer secret")
    assert status == 200
    found = np.reshape(answer["outputs"][0]["data"], answer["outputs"][0]["shape"])
    np.testing.assert_allclose(found, encoded(folder / "base", TEXTS[:4]), atol=MOST)
