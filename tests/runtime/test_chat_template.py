"""What a chat becomes: the text and the tokens that transformers makes of it; and templates that mean harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from eptx.errors import BundleError, EptxError, LimitError, NotSupportedError, RequestError
from eptx.runtime.requests.chat.renderer import Renderer
from eptx.runtime.requests.chat.template import ChatTemplate
from tests.support.chat import write_chat_tokenizer
from tests.support.chat_templates import ASKED, CHATS, SYSTEM, TEMPLATES, TOOL
from tests.support.smollm2 import smollm2


class Folder:
    """A folder as a bundle's: its files by name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, name: str) -> Path | None:
        return path if (path := self.path / name).is_file() else None


def chat_template(folder: Path) -> ChatTemplate:
    made = ChatTemplate.of(Folder(folder))  # type: ignore[arg-type]
    assert made is not None
    return made


@pytest.fixture(scope="module", params=TEMPLATES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ChatTemplate, Any]:
    """A template as eptx reads it, and its tokenizer as transformers reads it from the same folder."""
    folder = tmp_path_factory.mktemp("template")
    tokenizer = write_chat_tokenizer(folder)
    tokenizer.chat_template = TEMPLATES[request.param]
    tokenizer.save_pretrained(folder)
    return chat_template(folder), AutoTokenizer.from_pretrained(folder)


def by_transformers(tokenizer: Any, messages: Any, tools: Any = None, **variables: Any) -> Any:
    return tokenizer.apply_chat_template(messages, tools, add_generation_prompt=True, tokenize=False, **variables)


@pytest.mark.parametrize("name", CHATS)
def test_a_prompt_is_that_of_transformers(both: tuple[ChatTemplate, Any], name: str) -> None:
    template, tokenizer = both
    messages, tools, variables = CHATS[name]
    try:
        wanted = by_transformers(tokenizer, messages, tools, **variables)
    except Exception as error:  # the family's template does not take such a chat
        said = str(error).split("(")[0]
        with pytest.raises(RequestError, match="chat template does not take these messages") as caught:
            template.render(messages, tools, variables)
        assert said in str(caught.value)
    else:
        assert template.render(messages, tools, variables) == [wanted]


def test_several_chats(both: tuple[ChatTemplate, Any]) -> None:
    template, tokenizer = both
    chats = [[ASKED], [SYSTEM, ASKED]]
    assert template.render(chats) == by_transformers(tokenizer, chats)


def test_that_of_smollm2() -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2())
    chat = [SYSTEM, ASKED, {"role": "assistant", "content": "No."}, ASKED]
    assert chat_template(smollm2()).render(chat) == [by_transformers(tokenizer, chat)]


@pytest.mark.parametrize("named", [False, True])
def test_older_folders_have_it_in_the_settings(tmp_path: Path, named: bool) -> None:
    """Inside tokenizer_config.json, where there may be one for chats with tools; special tokens as objects."""
    write_chat_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    assert ChatTemplate.of(Folder(tmp_path)) is None  # type: ignore[arg-type]
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    one, other = TEMPLATES["phi"], TEMPLATES["llama"]
    several = [{"name": "tool_use", "template": other}, {"name": "default", "template": one}]
    settings |= {"chat_template": several if named else one}
    settings["eos_token"] = {"__type": "AddedToken", "content": "</s>", "lstrip": False}
    del settings["bos_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    legacy = {
        "bos_token": {"content": "<s>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    }
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(legacy))
    tokenizer, template = AutoTokenizer.from_pretrained(tmp_path), chat_template(tmp_path)
    assert tokenizer.bos_token == "<s>"
    for tools in (None, [TOOL]):
        assert template.render([ASKED], tools) == [by_transformers(tokenizer, [ASKED], tools)]


@pytest.mark.parametrize(
    ("template", "kind", "line"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", LimitError, "does not end"),
        ("{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n }}{% endmacro %}{{ f(40) }}", LimitError, "does not end"),
        ("{{ 9 ** (9 ** 9) }}", LimitError, "does not end"),
        ("{{ 'a' * (2 ** 33) }}", LimitError, "MemoryError"),
        ("{{ 'a'.ljust(2 ** 33) }}", LimitError, "MemoryError"),
        ("{{ 'a' * (2 ** 24) }}", LimitError, "more than 8388608 characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", LimitError, "RecursionError"),
        ("{{ ''.__class__.__mro__ }}", BundleError, "__class__"),
        ("{{ messages.append(1) }}", BundleError, "append"),
        ("{{ namespace(__init__=1) }}", BundleError, "underscore"),
        ("{{ raise_exception.__globals__.sys }}", BundleError, "__globals__"),
        ("{{ '{0.__class__.__mro__}'.format(1) }}", BundleError, "__class__"),
        ("{% for %}", BundleError, "cannot be used"),
        ("{% include 'eptx.json' %}", RequestError, "no loader"),
        ("{{ raise_exception('no\nsystem\nmessage') }}", RequestError, "messages: no system message"),
        ("{{ messages[0].content.text.more }}", RequestError, "no attribute 'text'"),
    ],
)
def test_a_template_that_means_harm(tmp_path: Path, template: str, kind: type[EptxError], line: str) -> None:
    (tmp_path / "chat_template.jinja").write_text(template)
    made = chat_template(tmp_path)
    with pytest.raises(kind) as caught:
        made.render([ASKED])
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    (tmp_path / "chat_template.jinja").write_text("{{ messages | length }}")
    assert chat_template(tmp_path).render([ASKED]) == ["1"]


def test_a_renderer_goes_on_after_a_template_that_did_not_end() -> None:
    renderer = Renderer()
    for _ in range(2):
        with pytest.raises(LimitError, match="does not end"):
            renderer.render("{{ 9 ** (9 ** 9) }}", {})
        assert renderer.render("{{ a }}", {"a": "b"}) == "b"


@pytest.mark.parametrize(
    ("messages", "line"),
    [
        ([], "not empty"),
        ([[]], "not empty"),
        ("hello", "must be a list of messages"),
        (["hello"], "message 0 must have a role"),
        ([ASKED, {"content": "x"}], "message 1 has no role, such as user; it has 'content'"),
        ([{"role": "user", "content": b"x"}], "no JSON"),
    ],
)
def test_what_is_no_chat(tmp_path: Path, messages: Any, line: str) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(RequestError, match=line):
        chat_template(tmp_path).render(messages)


def test_variables_cannot_take_the_place_of_the_chat(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ messages | length }}{{ name }}")
    template = chat_template(tmp_path)
    assert template.render([ASKED], None, {"name": "x"}) == ["1x"]
    with pytest.raises(RequestError, match="messages is no variable of a caller's"):
        template.render([ASKED], None, {"messages": []})
    with pytest.raises(RequestError, match="tools must be a list of JSON schemas"):
        template.render([ASKED], ["rain"])  # type: ignore[list-item]


def test_jinja2_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotSupportedError, match=r"pip install 'eptx\[generate\]'"):
        Renderer().render("", {})
