"""`Session.chat`: the tokens that transformers gives a chat, and the answers to them."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from eptx import Session
from eptx.bundle import Bundle
from eptx.errors import RequestError
from tests.support.chat import write_chat_bundle, write_chat_tokenizer
from tests.support.chat_templates import ASKED, SYSTEM, TEMPLATES

CHATS = [[ASKED], [SYSTEM, ASKED]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_chat_bundle(tmp_path_factory.mktemp("chat") / "b")


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> Session:
    return Session(bundle, threads=1)


@pytest.fixture(scope="module", params=["begun", "bare", "begun and ended", "ended"])
def made(bundle: Bundle, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The bundle with a tokenizer of each kind, and that tokenizer as transformers has it."""
    folder = Path(shutil.copytree(bundle.path, tmp_path_factory.mktemp("kind") / "b"))
    write_chat_tokenizer(folder, request.param)
    return Session(replace(bundle, path=folder), threads=1), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("family", [None, "phi"])
def test_a_chat_has_the_tokens_of_transformers(made: tuple[Session, Any], family: str | None) -> None:
    """Special tokens come from the template alone, whether it writes them (None) or not."""
    session, tokenizer = made
    if family is not None:
        (session.bundle.path / "chat_template.jinja").write_text(TEMPLATES[family])
        session, tokenizer = Session(session.bundle), AutoTokenizer.from_pretrained(session.bundle.path)
    wanted = [
        tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
        for chat in CHATS
    ]
    assert [list(row) for row in session.check_chat(CHATS).prompts] == wanted
    assert wanted[0].count(tokenizer.bos_token_id) == (family is None)


def test_an_answer_is_that_to_the_prompt(session: Session) -> None:
    tokenizer = AutoTokenizer.from_pretrained(session.bundle.path)
    ids = [tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False) for c in CHATS]
    wanted = session.generate(ids, "chat", max_new_tokens=12)
    assert session.chat(CHATS, "chat", max_new_tokens=12) == wanted
    pieces = list(session.stream_chat(CHATS[0], max_new_tokens=12))
    assert tuple(piece.token_id for piece in pieces) == session.chat(CHATS[0], max_new_tokens=12).token_ids[0]
    drawn = {"temperature": 0.9, "seed": 4, "max_new_tokens": 12}
    assert session.chat(CHATS, **drawn) == session.generate(ids, **drawn)  # type: ignore[arg-type]


def test_variables_and_tools_reach_the_template(bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "b"))
    (folder / "chat_template.jinja").write_text("{{ tools | tojson }}{{ mood }}")
    session = Session(replace(bundle, path=folder))
    request = session.check_chat([ASKED], tools=[{"name": "f"}], variables={"mood": "good"})
    assert session.tokenizer.decode(list(map(int, request.prompts[0]))) == '[{"name": "f"}]good'


def test_what_does_not_chat_says_so(bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "b"))
    (folder / "chat_template.jinja").unlink()
    files = {name: file for name, file in bundle.manifest.files.items() if name != "chat_template.jinja"}
    session = Session(replace(bundle, path=folder, manifest=replace(bundle.manifest, files=files)))
    with pytest.raises(RequestError, match="this bundle has no chat template"):
        session.chat([ASKED])


def test_a_prompt_without_the_template_is_warned_of_once(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    session = Session(bundle)
    with caplog.at_level(logging.WARNING, "eptx.runtime"):
        session.chat([ASKED], max_new_tokens=1)
        session.generate([[5, 6, 7]], max_new_tokens=1)
        session.generate("<s><|user|>\nIs it?<|end|>\n<|assistant|>\n", max_new_tokens=1)
        assert caplog.messages == []
        for text in ("What is the capital of France?", "And of Spain?"):
            session.generate(text, max_new_tokens=1)
    assert len(caplog.messages) == 1
    assert "chat template" in caplog.messages[0] and "Session.chat" in caplog.messages[0]


def test_a_bundle_without_a_template_is_not_warned_of(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "b"))
    files = {name: file for name, file in bundle.manifest.files.items() if name != "chat_template.jinja"}
    session = Session(replace(bundle, path=folder, manifest=replace(bundle.manifest, files=files)))
    session.generate("Is it?", max_new_tokens=1)
    assert caplog.messages == []
