"""Stop texts that hold special tokens end an answer where transformers' criterion for them does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer
from transformers.generation.stopping_criteria import StopStringCriteria

from eptx import Session
from eptx.bundle import Bundle
from eptx.errors import RequestError
from eptx.runtime.generation.text import StopTexts
from tests.runtime.serving.servers import Server, serving
from tests.support.chat import write_chat_bundle

DRAWN: dict[str, Any] = {"max_new_tokens": 60, "temperature": 1.0}
SPECIAL = r"<(?:\|[0-9a-z]+\||s|/s|pad)>"
#: What a stop text is made of, as it stands in an answer that shows its special tokens.
STOPS = {
    "one special token": SPECIAL,
    "two special tokens": SPECIAL * 2,
    "text, then a special token": r"[a-zA-Z0-9 ]" + SPECIAL,
    "a special token, then text": SPECIAL + r"[ -;=-{}]",
    "special tokens around text": SPECIAL + r"[ -;=-{}]{1,2}" + SPECIAL,
    "half of a special token": r"\|[0-9]+\|>",
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_chat_bundle(tmp_path_factory.mktemp("stops") / "chat", pieces=True)


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> Session:
    return Session(bundle, threads=1)


@pytest.fixture(scope="module")
def tokenizer(bundle: Bundle) -> Any:
    return AutoTokenizer.from_pretrained(bundle.path)


@pytest.fixture(scope="module")
def server(bundle: Bundle) -> Iterator[Server]:
    with serving(bundle.path.parent, bundle.path) as server:
        yield server


def ends(tokenizer: Any, ids: tuple[int, ...], stop: str) -> int:
    """How many tokens transformers makes until the stop text is there."""
    criterion = StopStringCriteria(tokenizer, [stop])
    return next(n for n in range(1, len(ids) + 1) if criterion(torch.tensor([ids[:n]]), None).item())


@pytest.mark.parametrize("kind", STOPS)
def test_an_answer_ends_before_it(session: Session, tokenizer: Any, server: Server, kind: str) -> None:
    checked = 0
    for seed in range(100):
        settings = {**DRAWN, "seed": seed}
        free = session.generate("Is it?", **settings)
        written = tokenizer.decode(free.token_ids[0])
        found = re.search(STOPS[kind], written)
        if found is None:
            continue
        hidden = {place for special in re.finditer(SPECIAL, written) for place in range(*special.span())}
        stop, shown = found[0], "".join(c for i, c in enumerate(written[: found.start()]) if i not in hidden)
        made = session.generate("Is it?", **settings, stop=["nothing like it", stop])
        count = ends(tokenizer, free.token_ids[0], stop)
        assert made.token_ids[0] == free.token_ids[0][:count]
        assert made.finish_reasons == ("stop_string",)
        assert made.texts == (shown,)
        _check_served(server, seed, stop, shown, count)
        checked += 1
        if checked == 3:
            return
    assert checked, "no answer holds such a text"


def _check_served(server: Server, seed: int, stop: str, shown: str, count: int) -> None:
    parameters = {"max_tokens": 60, "temperature": 1.0, "seed": seed, "stop": stop}
    request, path = {"text_input": "Is it?", "parameters": parameters}, "/v2/models/chat/generate"
    whole = json.loads(server.call("POST", path, request)[2])
    details = {"finish_reason": "stop_string", "tokens": count}
    assert (whole["text_output"], whole["details"]) == (shown, details)
    lines = server.call("POST", f"{path}_stream", request)[2].decode().split("\n\n")[:-1]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert "".join(event["text_output"] for event in events) == shown
    assert events[-1]["details"] == details


def test_special_tokens_that_end_nothing_are_not_shown(session: Session, tokenizer: Any) -> None:
    for seed in range(4):
        free = session.generate("Is it?", **DRAWN, seed=seed)
        made = session.generate("Is it?", **DRAWN, seed=seed, stop=["nothing like it", "<|nothing|>"])
        assert made == free
        assert free.texts[0] == tokenizer.decode(free.token_ids[0], skip_special_tokens=True)


def test_the_token_that_ends_answers_may_be_in_it(session: Session, tokenizer: Any) -> None:
    drawn = (session.generate("Is it?", max_new_tokens=240, temperature=1.0, seed=seed) for seed in range(60))
    free, seed = next((made, seed) for seed, made in enumerate(drawn) if made.finish_reasons == ("stop",))
    ids = free.token_ids[0]
    stop = tokenizer.decode(ids[-2:])
    assert stop.endswith("</s>")
    made = session.generate("Is it?", max_new_tokens=240, temperature=1.0, seed=seed, stop=stop)
    assert made.token_ids == free.token_ids
    assert made.finish_reasons == ("stop_string",)
    assert made.texts == (tokenizer.decode(ids[:-2], skip_special_tokens=True),)


def test_what_is_held_is_shown_when_it_ends_nothing() -> None:
    texts = StopTexts(["a<|x|>b", "<|x|><|y|>"])
    assert texts.add("ca") == ("c", False)
    assert texts.add("", "<|x|>") == ("", False)
    assert texts.add("c") == ("ac", False)
    assert texts.add("a", "<|x|>") == ("", False)
    assert texts.finish() == "a"
    assert texts.add("a") == ("", False)
    assert texts.add("", "<|x|>") == ("", False)
    assert texts.add("", "<|y|>") == ("a", True)


@pytest.mark.parametrize(
    ("stop", "line"),
    [
        ([f"w{i}" for i in range(65)], "there are 65 stop texts; at most 64 are taken"),
        (["a" * 257], "a stop text has more than 256 characters"),
        ([""], "a stop text is empty"),
    ],
)
def test_limits(session: Session, server: Server, stop: list[str], line: str) -> None:
    with pytest.raises(RequestError, match=line):
        session.generate("a", stop=stop)
    request = {"text_input": "a", "parameters": {"stop": stop}}
    status, _, body = server.call("POST", "/v2/models/chat/generate", request)
    assert (status, json.loads(body)["error"]) == (400, line)


def test_as_many_as_there_may_be(session: Session) -> None:
    most = [f"{i:02}" + "a" * 254 for i in range(64)]
    free = session.generate("a", max_new_tokens=20)
    assert session.generate("a", max_new_tokens=20, stop=most) == free
