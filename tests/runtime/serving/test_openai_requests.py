"""Requests of OpenAI's protocol as other programs send them, and values that no field expects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eptx import Session
from tests.runtime.serving.servers import Server, serving
from tests.runtime.serving.test_values import VALUES, V, sent
from tests.support.chat import write_chat_bundle

CHAT: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "a"}], "max_tokens": 3}
TEXT: dict[str, Any] = {"model": "chat", "prompt": "a", "max_tokens": 3}
_BOTH = (
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "model",
    "n",
    "user",
)
CHATS: dict[str, Any] = {
    **{name: {**CHAT, name: V} for name in (*_BOTH, "messages", "tools", "tool_choice", "max_completion_tokens")},
    **{name: {**CHAT, name: V} for name in ("logprobs", "response_format", "chat_template_kwargs", "metadata")},
    "top_logprobs": {**CHAT, "logprobs": True, "top_logprobs": V},
    "usage": {**CHAT, "stream": True, "stream_options": {"include_usage": V}},
    "a message": {**CHAT, "messages": [V]},
    "a role": {**CHAT, "messages": [{"role": V, "content": "a"}]},
    "a content": {**CHAT, "messages": [{"role": "user", "content": V}]},
    "a part": {**CHAT, "messages": [{"role": "user", "content": [V]}]},
    "a part's text": {**CHAT, "messages": [{"role": "user", "content": [{"type": "text", "text": V}]}]},
    "calls": {**CHAT, "messages": [{"role": "assistant", "tool_calls": V}]},
    "a call": {**CHAT, "messages": [{"role": "assistant", "tool_calls": [V]}]},
    "arguments": {**CHAT, "messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": V}}]}]},
    "another field": {**CHAT, "messages": [{"role": "user", "content": "a", "name": V}]},
    "a tool": {**CHAT, "tools": [V]},
    "a variable": {**CHAT, "chat_template_kwargs": {"mood": V}},
    "the chat's own variable": {**CHAT, "chat_template_kwargs": {"messages": V}},
    "all": V,
}
TEXTS: dict[str, Any] = {
    **{name: {**TEXT, name: V} for name in (*_BOTH, "prompt", "logprobs", "echo", "suffix", "add_special_tokens")},
    "a prompt": {**TEXT, "prompt": [V]},
    "all": V,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("requests")
    return write_chat_bundle(parent / "chat", tasks=("kind", "rude"), max_position_embeddings=2048).path


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Server]:
    alone = write_chat_bundle(folder.parent / "alone").path
    with serving(folder.parent, f"chat={alone}", f"desk={folder}", "--max-text", "5000") as server:
        yield server


def error_of(body: bytes) -> dict[str, Any]:
    """The error's object, whose line must be one."""
    (name, error), *others = json.loads(body).items()
    assert (name, others, set(error)) == ("error", [], {"message", "type", "param", "code"})
    assert error["message"] and "\n" not in error["message"] and len(error["message"]) < 500
    assert "Traceback" not in error["message"]
    return dict(error)


def check(server: Server, path: str, body: Any) -> None:
    for name, value in VALUES.items():
        status, _, answer = server.call("POST", path, sent(body, value), content_type="application/json")
        assert status in (200, 400, 404), (name, answer)
        if status != 200:
            error_of(answer)


@pytest.mark.parametrize("field", CHATS)
def test_a_value_in_a_chat(served: Server, field: str) -> None:
    check(served, "/v1/chat/completions", CHATS[field])


@pytest.mark.parametrize("field", TEXTS)
def test_a_value_in_a_text(served: Server, field: str) -> None:
    check(served, "/v1/completions", TEXTS[field])


def test_texts_of_too_many_characters(served: Server) -> None:
    """Wherever in the request they are."""
    long = "a" * 5001
    for path, request in (
        ("/v1/completions", {**TEXT, "prompt": long}),
        ("/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": long}]}),
        ("/v1/chat/completions", {**CHAT, "tools": [{"name": long}]}),
        ("/v1/chat/completions", {**CHAT, "chat_template_kwargs": {"mood": [long]}}),
    ):
        status, _, answer = served.call("POST", path, request)
        assert status == 400
        assert error_of(answer)["message"].endswith("characters of text; this server takes 5000")


def test_what_a_chat_ui_asks(served: Server, folder: Path) -> None:
    """Open WebUI: the models, a chat in a stream with fields of its own, and the title of a chat."""
    own = {"Authorization": "Bearer none", "X_OpenWebUI_User_Name": "Ada", "X_OpenWebUI_Chat_Id": "7"}
    status, _, body = served.call("GET", "/v1/models", **own)
    models = json.loads(body)
    assert (status, models["object"]) == (200, "list")
    assert [model["id"] for model in models["data"]] == ["chat", "chat:chat", "desk:kind", "desk:rude", "desk:base"]
    asked = {"role": "user", "content": [{"type": "text", "text": "Is it?", "cache_control": {"type": "ephemeral"}}]}
    chat = {
        "stream": True,
        "model": "desk:rude",
        "messages": [{"role": "system", "content": "Be short."}, asked],
        "stream_options": {"include_usage": True},
        "max_tokens": 20,
        "frequency_penalty": 0,
        "reasoning": {"effort": "low"},
        "user": {"name": "Ada", "id": "1", "email": "ada@example.org", "role": "admin"},
        "chat_id": "7",
        "session_id": "8",
        "background_tasks": {"title_generation": True},
        "features": {"web_search": False},
        "files": None,
        "tool_ids": [],
    }
    status, headers, body = served.call("POST", "/v1/chat/completions", chat, **own)
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    lines = body.decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Is it?"}]
    wanted = Session(folder, threads=1).chat(messages, "rude", max_new_tokens=20)
    choices = [chunk["choices"][0] for chunk in chunks[:-1]]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == wanted.texts[0]
    assert (choices[-1]["finish_reason"], chunks[-1]["choices"]) == ("length", [])
    assert chunks[-1]["usage"]["completion_tokens"] == 20
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    title = {"model": "desk:rude", "messages": messages, "stream": False, "max_completion_tokens": 9}
    status, _, body = served.call("POST", "/v1/chat/completions", title, **own)
    assert (status, json.loads(body)["choices"][0]["message"]["role"]) == (200, "assistant")


def test_the_server_logged_no_traceback(served: Server) -> None:
    said = [line["event"] for line in served.log() if line["event"] not in ("loaded", "start")]
    assert len(said) <= 2, said  # each bundle warns once of a prompt that is not in its template's form
    assert all(line.startswith("the bundle has a chat template") for line in said)
