"""OpenAI's own client, against ``eptx serve`` in a process of its own: every task is a model."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from eptx import Session
from eptx.files.strict_json import dump_json
from eptx.runtime import Generated
from tests.runtime.serving.servers import Server, serving, wait_for
from tests.support.chat import write_chat_bundle

TASKS = ("kind", "rude")
MODELS = ["desk:kind", "desk:rude", "desk:base"]
SYSTEM: dict[str, Any] = {"role": "system", "content": "Be short."}
ASKED: dict[str, Any] = {"role": "user", "content": "Is it raining?"}
CHAT = [SYSTEM, ASKED]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("chat")
    write_chat_bundle(parent / "desk", tasks=TASKS, max_position_embeddings=2048)
    write_chat_bundle(parent / "alone", max_position_embeddings=2048)
    return parent


@pytest.fixture(scope="module")
def desk(folder: Path) -> Iterator[Server]:
    with serving(folder, folder / "desk", folder / "alone", "--log-level", "debug") as server:
        yield server


@pytest.fixture(scope="module")
def client(desk: Server) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"http://{desk.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    return Session(folder / "desk", threads=1)


def usage(session: Session, made: Generated, task: str = "kind") -> dict[str, int]:
    """What there is to count: the tokens of the prompt, and of the answer with the one that ended it."""
    prompt, answer = len(session.check_chat(CHAT, task).prompts[0]), len(made.token_ids[0])
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def counted(given: Any) -> dict[str, int]:
    return {name: getattr(given, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}


def test_every_task_is_a_model(client: Any) -> None:
    """A bundle is one too, where a request needs to name no task."""
    listed = list(client.models.list())
    assert [model.id for model in listed] == [*MODELS, "alone", "alone:chat"]
    assert {(model.object, model.owned_by) for model in listed} == {("model", "eptx")}
    assert client.models.retrieve("desk:rude").id == "desk:rude"
    assert client.models.retrieve("alone") == next(model for model in listed if model.id == "alone")


@pytest.mark.parametrize("task", [*TASKS, "base"])
def test_a_chat_is_answered_as_the_session_answers_it(client: Any, session: Session, task: str) -> None:
    made = session.chat(CHAT, task, max_new_tokens=20)
    answer = client.chat.completions.create(model=f"desk:{task}", messages=CHAT, max_tokens=20)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", made.texts[0])
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert (answer.object, answer.model) == ("chat.completion", f"desk:{task}")
    assert counted(answer.usage) == usage(session, made, task)


def test_a_bundle_of_one_task(client: Any, folder: Path) -> None:
    made = Session(folder / "alone", threads=1).chat(CHAT, max_new_tokens=9).texts[0]
    for model in ("alone", "alone:chat"):
        answer = client.chat.completions.create(model=model, messages=CHAT, max_completion_tokens=9, max_tokens=5)
        assert answer.choices[0].message.content == made


@pytest.mark.parametrize("with_usage", [True, False])
def test_a_chat_in_a_stream(client: Any, session: Session, with_usage: bool) -> None:
    made = session.chat(CHAT, "kind", max_new_tokens=20)
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    stream = client.chat.completions.create(model="desk:kind", messages=CHAT, max_tokens=20, stream=True, **options)
    chunks = list(stream)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert choices[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for choice in choices) == made.texts[0]
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["length"]
    assert choices[-1].finish_reason == "length"
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    assert chunks[0].object == "chat.completion.chunk"
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [with_usage]
    if with_usage:
        assert chunks[-1].choices == []
        assert counted(chunks[-1].usage) == usage(session, made)


def test_the_asynchronous_client(desk: Server, session: Session) -> None:
    made = session.chat(CHAT, "rude", max_new_tokens=20).texts[0]

    async def ask() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=f"http://{desk.url}/v1", api_key="none", max_retries=0) as client:
            whole = await client.chat.completions.create(model="desk:rude", messages=CHAT, max_tokens=20)
            stream = await client.chat.completions.create(model="desk:rude", messages=CHAT, max_tokens=20, stream=True)
            parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return whole.choices[0].message.content, "".join(parts)

    assert asyncio.run(ask()) == (made, made)


def test_settings_are_those_of_the_session(client: Any, session: Session) -> None:
    """Drawn answers too: the seed, the temperature, ``top_p``, and ``top_k``, which is not OpenAI's own."""
    drawn: dict[str, Any] = {"temperature": 1.3, "top_p": 0.9, "seed": 7}
    made = session.chat(CHAT, "kind", max_new_tokens=20, top_k=50, **drawn)
    again = session.chat(CHAT, "kind", max_new_tokens=20, top_k=50, **{**drawn, "seed": 8})
    assert made.texts != again.texts
    answer = client.chat.completions.create(
        model="desk:kind", messages=CHAT, max_tokens=20, **drawn, extra_body={"top_k": 50}
    )
    assert answer.choices[0].message.content == made.texts[0]


@pytest.mark.parametrize("streams", [True, False])
def test_stop_texts_also_across_tokens(client: Any, session: Session, streams: bool) -> None:
    """A token is a byte, so every stop text of two characters crosses a token's end."""
    options: dict[str, Any] = {"temperature": 1.5, "seed": 3}
    whole = session.chat(CHAT, "kind", max_new_tokens=60, **options).texts[0]
    stop = next(whole[at : at + 2] for at in range(8, len(whole) - 2) if whole[at : at + 2].isascii())
    wanted = whole[: whole.index(stop)]
    given = {"model": "desk:kind", "messages": CHAT, "max_tokens": 60, "stop": ["no such", stop], **options}
    if streams:
        choices = [chunk.choices[0] for chunk in client.chat.completions.create(**given, stream=True)]
        assert "".join(choice.delta.content or "" for choice in choices) == wanted
        assert choices[-1].finish_reason == "stop"
    else:
        choice = client.chat.completions.create(**given).choices[0]
        assert (choice.message.content, choice.finish_reason) == (wanted, "stop")


def test_logprobs_of_a_chat(client: Any, session: Session) -> None:
    pieces = list(session.stream_chat(CHAT, "kind", max_new_tokens=6, top_logprobs=3))
    given = {"model": "desk:kind", "messages": CHAT, "max_tokens": 6, "logprobs": True, "top_logprobs": 3}
    whole = client.chat.completions.create(**given).choices[0].logprobs.content
    parts = [chunk.choices[0].logprobs for chunk in client.chat.completions.create(**given, stream=True)]
    streamed = [token for part in parts if part is not None for token in part.content]
    for told in (whole, streamed):
        assert len(told) == len(pieces)
        for token, piece in zip(told, pieces, strict=True):
            assert piece.logprobs is not None
            assert token.logprob == pytest.approx(piece.logprobs.token, abs=1e-5)
            assert token.token == session.tokenizer.token_text(piece.token_id)
            assert token.bytes is None or bytes(token.bytes).decode() == token.token
            wanted = [(session.tokenizer.token_text(i), pytest.approx(v, abs=1e-5)) for i, v in piece.logprobs.top]
            assert [(top.token, top.logprob) for top in token.top_logprobs] == wanted
    plain = client.chat.completions.create(model="desk:kind", messages=CHAT, max_tokens=6, logprobs=True)
    assert all(token.top_logprobs == [] for token in plain.choices[0].logprobs.content)


@pytest.mark.parametrize("streams", [True, False])
def test_an_answer_that_ends_by_itself(client: Any, session: Session, streams: bool) -> None:
    """The token that ends it is counted, and is no part of what is said of its tokens."""
    for seed in range(40):
        drawn: dict[str, Any] = {"temperature": 2.0, "seed": seed}
        made = session.chat(CHAT, "kind", max_new_tokens=200, **drawn)
        if made.finish_reasons == ("stop",):
            break
    count = len(made.token_ids[0])
    given = {"model": "desk:kind", "messages": CHAT, "max_tokens": 200, "logprobs": True, **drawn}
    if streams:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        *chunks, last = client.chat.completions.create(**given, **options)
        choices = [chunk.choices[0] for chunk in chunks]
        told = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
        assert "".join(choice.delta.content or "" for choice in choices) == made.texts[0]
        reason, used = choices[-1].finish_reason, last.usage
    else:
        answer = client.chat.completions.create(**given)
        (choice,), used = answer.choices, answer.usage
        assert choice.message.content == made.texts[0]
        told, reason = choice.logprobs.content, choice.finish_reason
    assert (reason, used.completion_tokens) == ("stop", count)
    assert [token.token for token in told] == [session.tokenizer.token_text(i) for i in made.token_ids[0][:-1]]


def test_a_text_completion(client: Any, session: Session) -> None:
    made = session.generate("Once upon", "kind", max_new_tokens=12)
    prompt = session.check_prompts("Once upon", "kind").prompts[0]
    answer = client.completions.create(model="desk:kind", prompt="Once upon", max_tokens=12)
    assert (answer.object, answer.choices[0].text) == ("text_completion", made.texts[0])
    assert answer.choices[0].finish_reason == "length"
    assert counted(answer.usage) == {
        "prompt_tokens": len(prompt),
        "completion_tokens": 12,
        "total_tokens": len(prompt) + 12,
    }
    for given in (["Once upon"], list(map(int, prompt)), [list(map(int, prompt))]):
        assert client.completions.create(model="desk:kind", prompt=given, max_tokens=12).choices == answer.choices
    stream = client.completions.create(
        model="desk:kind", prompt="Once upon", max_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == made.texts[0]
    assert counted(chunks[-1].usage) == counted(answer.usage)


def test_logprobs_of_a_text(client: Any, session: Session) -> None:
    drawn: dict[str, Any] = {"temperature": 1.5, "seed": 1}
    pieces = list(session.stream("Once upon", "kind", max_new_tokens=30, top_logprobs=2, **drawn))
    answer = client.completions.create(model="desk:kind", prompt="Once upon", max_tokens=30, logprobs=2, **drawn)
    told, texts = answer.choices[0].logprobs, [session.tokenizer.token_text(piece.token_id) for piece in pieces]
    assert told.tokens == texts and max(map(len, texts)) > 1
    assert told.text_offset == [len("".join(texts[:at])) for at in range(len(texts))]
    assert told.token_logprobs == [pytest.approx(piece.logprobs.token, abs=1e-5) for piece in pieces if piece.logprobs]
    assert [len(top) <= 2 for top in told.top_logprobs] == [True] * len(pieces)


def test_several_tasks_share_a_batch(folder: Path, session: Session) -> None:
    """Chats and texts, streams and whole answers, of three tasks: four requests, one batch."""
    limits = ("--generations", "4", "--max-delay-ms", "20000")
    made = session.generate(
        [list(session.check_chat(CHAT, "kind").prompts[0])] * 3, [*TASKS, "base"], max_new_tokens=12
    )
    with serving(folder, folder / "desk", *limits) as server, ThreadPoolExecutor(4) as pool:
        client = openai.OpenAI(base_url=f"http://{server.url}/v1", api_key="none", max_retries=0, timeout=60)
        given = {"messages": CHAT, "max_tokens": 12}
        asked = [pool.submit(client.chat.completions.create, model=model, **given) for model in MODELS]
        text = pool.submit(client.completions.create, model="desk:kind", prompt="Once upon a time", max_tokens=5)
        answers = [future.result().choices[0].message.content for future in asked]
        assert text.result().usage.completion_tokens == 5
        client.close()
        assert server.metric("eptx_generation_rows_count") == 1
        assert server.metric("eptx_generation_rows_sum") == 4
        assert server.metric("eptx_requests_total", model="desk", verb="chat_completions", code="200") == 3
    assert answers == list(made.texts)


def test_tools_and_variables_reach_the_template(folder: Path, tmp_path: Path) -> None:
    """And arguments of calls, which clients send as text, as the objects that templates expect."""
    copy = Path(shutil.copytree(folder / "alone", tmp_path / "b"))
    (copy / "chat_template.jinja").write_text(
        "{{ tools | tojson }}{{ mood }}{% for m in messages %}{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.arguments.city }}{% endfor %}{% endfor %}"
    )
    manifest = json.loads((copy / "eptx.json").read_text())
    data = (copy / "chat_template.jinja").read_bytes()
    manifest["files"]["chat_template.jinja"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (copy / "eptx.json").write_bytes(dump_json(manifest))
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"city": "Rome"}'}}
    chat = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "c"},
    ]
    tool = {"type": "function", "function": {"name": "f"}}
    session = Session(copy, threads=1)
    prompt = json.dumps([tool]) + "gooda\nbRomec"
    wanted = session.generate(prompt, max_new_tokens=9, add_special_tokens=False)
    with serving(tmp_path, f"b={copy}") as server:
        client = openai.OpenAI(base_url=f"http://{server.url}/v1", api_key="none", max_retries=0)
        answer = client.chat.completions.create(
            model="b",
            messages=chat,
            tools=[tool],
            max_tokens=9,
            extra_body={"chat_template_kwargs": {"mood": "good"}},
        )
        client.close()
    assert answer.choices[0].message.content == wanted.texts[0]
    assert answer.usage.prompt_tokens == len(session.tokenizer.encode([prompt], special=False)[0])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("changed", "kind", "code", "param", "line"),
    [
        ({"model": "nothing"}, "NotFoundError", "model_not_found", None, "no model 'nothing'"),
        ({"model": "desk"}, "NotFoundError", "model_not_found", "model", "there are desk:kind, desk:rude, desk:base"),
        ({"model": "desk:polite"}, "NotFoundError", "model_not_found", "model", "no model 'desk:polite'"),
        ({"max_tokens": 10**6}, "BadRequestError", "context_length_exceeded", None, "more do not fit"),
        ({"max_tokens": 0}, "BadRequestError", None, None, "max_new_tokens must be"),
        ({"temperature": -1}, "BadRequestError", None, None, "temperature must not be negative"),
        ({"n": 2}, "BadRequestError", None, "n", "n is not supported here; leave it out, it is 2"),
        ({"logit_bias": {"5": 3}}, "BadRequestError", None, "logit_bias", "logit_bias is not supported"),
        ({"response_format": {"type": "json_object"}}, "BadRequestError", None, "response_format", "not supported"),
        ({"tool_choice": "required"}, "BadRequestError", None, "tool_choice", "not supported"),
        ({"top_logprobs": 3}, "BadRequestError", None, "top_logprobs", "needs logprobs to be true"),
        ({"logprobs": True, "top_logprobs": 21}, "BadRequestError", None, None, "top_logprobs must be"),
        ({"messages": []}, "BadRequestError", None, "messages", "not empty"),
        ({"messages": [{"content": "a"}]}, "BadRequestError", None, "messages[0]", "a role and a content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "BadRequestError",
            None,
            "messages[0].content",
            "may hold parts of type text only, not 'image_url'",
        ),
        ({"stream_options": 3}, "BadRequestError", None, "stream_options", "must be an object"),
    ],
)
def test_errors_are_those_that_clients_know(
    client: Any, changed: dict[str, Any], kind: str, code: str | None, param: str | None, line: str, stream: bool
) -> None:
    given = {"model": "desk:kind", "messages": CHAT, "max_tokens": 5, "stream": stream, **changed}
    with pytest.raises(getattr(openai, kind)) as caught:
        client.chat.completions.create(**given)
    error = caught.value
    assert (error.code, error.param, error.type) == (code, param, "invalid_request_error")
    assert line in error.body["message"]
    assert "\n" not in error.body["message"]
    assert set(error.body) == {"message", "type", "param", "code"}


def test_errors_of_texts(client: Any) -> None:
    for changed, line in (
        ({"prompt": ["a", "b"]}, "several prompts"),
        ({"prompt": [["a"]]}, "must be a text or token ids"),
        ({"echo": True}, "echo is not supported"),
        ({"best_of": 3}, "best_of is not supported"),
        ({"suffix": "x"}, "suffix is not supported"),
    ):
        with pytest.raises(openai.BadRequestError, match=line):
            client.completions.create(**{"model": "desk:kind", "prompt": "a", "max_tokens": 5, **changed})


def test_paths_that_are_not_there(desk: Server, client: Any) -> None:
    for method, path, status in (("GET", "/v1/rerank", 404), ("GET", "/v1/completions", 405)):
        got, _, body = desk.call(method, path)
        assert (got, set(json.loads(body)["error"])) == (status, {"message", "type", "param", "code"})
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("desk:polite")
    assert caught.value.code == "model_not_found"
    assert json.loads(desk.call("GET", "/v2/nothing")[2]) == {"error": "there is nothing at this path"}


def test_a_token_is_asked_for(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("sesame\n")
    with serving(folder, folder / "alone", "--token-file", tmp_path / "tokens") as server:
        url = f"http://{server.url}/v1"
        with openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                client.models.list()
            assert caught.value.code == "invalid_api_key"
        with openai.OpenAI(base_url=url, api_key="sesame", max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["alone", "alone:chat"]
            assert client.chat.completions.create(model="alone", messages=CHAT, max_tokens=2).choices


def test_a_full_queue(folder: Path) -> None:
    limits = ("--queue", "2", "--max-batch", "2", "--generations", "4", "--max-delay-ms", "5000")
    with serving(folder, folder / "desk", *limits) as server, ThreadPoolExecutor(2) as pool:
        client = openai.OpenAI(base_url=f"http://{server.url}/v1", api_key="none", max_retries=0)
        given = {"messages": CHAT, "max_tokens": 5}
        asked = [pool.submit(client.chat.completions.create, model=model, **given) for model in MODELS[:2]]
        wait_for(lambda: server.metric("eptx_queue_rows") == 2)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="desk:base", **given)
        assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_error")
        assert caught.value.response.headers["retry-after"] == "1"
        assert all(future.result().choices for future in asked)
        client.close()


@pytest.mark.parametrize("stream", [True, False])
def test_a_deadline(client: Any, stream: bool) -> None:
    late = {"x-request-timeout-ms": "1"}
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(
            model="desk:kind", messages=CHAT, max_tokens=1500, stream=stream, extra_headers=late
        )
    assert (caught.value.status_code, caught.value.type) == (504, "server_error")


def test_a_client_that_leaves_ends_its_answer(desk: Server, client: Any) -> None:
    made = []
    for _ in range(5):  # on a busy machine the answer may be whole before the server sees that nobody reads it
        before = desk.metric("eptx_generated_tokens_total")
        stream = client.chat.completions.create(model="desk:kind", messages=CHAT, max_tokens=1500, stream=True)
        next(stream)
        stream.close()
        made.append(wait_for(lambda: desk.metric("eptx_generated_tokens_total") - before))  # noqa: B023
    assert min(made) < 1500
