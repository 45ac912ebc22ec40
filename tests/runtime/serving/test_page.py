"""The pages of `eptx serve`, and where it says that it listens: in raw HTTP, on a terminal, and in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from eptx.runtime import Session
from tests.examples.web import in_browser, until
from tests.runtime.serving.servers import Server, serving
from tests.support.browser import Browser, Opened
from tests.support.chat import TEMPLATE
from tests.support.decoders import write_decoder
from tests.support.tiny_bundle import TASKS, write_tiny

#: Text that would run if it were markup: the name of a task and of a label, and every token that a model writes.
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>&amp;"
OPEN = ("/", "/docs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles: ``tiny`` and ``hostile`` classify, ``writer`` chats."""
    folder = tmp_path_factory.mktemp("pages")
    write_tiny(folder / "tiny", tokenizer=True)
    names = ("negative", HOSTILE)
    write_tiny(
        folder / "hostile", tokenizer=True, tasks=(replace(TASKS[0], name=HOSTILE, label_names=names), *TASKS[1:])
    )
    _write_writer(folder / "writer")
    return folder


def _write_writer(out: Path) -> None:
    """A small Llama whose every token is hostile text, with a chat template."""
    from transformers import PreTrainedTokenizerFast

    from eptx.calibration import export_bundle
    from eptx.exporter import ExportOptions
    from tests.exporter.validation.adapters import linear_shapes, write_lora

    with tempfile.TemporaryDirectory() as scratch:
        base = write_decoder("llama", Path(scratch) / "base", vocab_size=40)
        words = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3} | {f"{HOSTILE}{i} ": i for i in range(4, 40)}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        named = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
        fast.chat_template = TEMPLATE
        fast.save_pretrained(base)
        adapters = [
            write_lora(Path(scratch) / name, linear_shapes(base, ("q_proj",)), seed=seed)
            for seed, name in enumerate(("calm", "loud"))
        ]
        export_bundle(base, adapters, out, ExportOptions(mode="conditioned"))


@pytest.fixture(scope="module")
def pages(folder: Path) -> Iterator[Server]:
    with serving(folder, *(folder / name for name in ("tiny", "hostile", "writer"))) as server:
        yield server


def test_a_page_loads_nothing_and_may_run_only_its_own_script(pages: Server) -> None:
    for path in OPEN:
        status, headers, body = pages.call("GET", path)
        page = body.decode()
        assert status == 200 and headers["content-type"] == "text/html; charset=utf-8"
        assert re.findall(r"""(?:https?:)?//[\w.]+\.\w|@import|url\(|\bsrc=|innerHTML|\bon\w+="|style=""", page) == []
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        for kind in ("style", "script"):
            (own,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
            assert policy.pop(f"{kind}-src") == f"'sha256-{digest}'"
        assert policy == {
            "default-src": "'none'",
            "connect-src": "'self'",
            "img-src": "data:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert headers["x-content-type-options"] == "nosniff" and "access-control-allow-origin" not in headers


def test_health_is_as_clients_of_other_servers_ask_for_it(pages: Server) -> None:
    status, _, body = pages.call("GET", "/health")
    assert (status, json.loads(body)) == (200, {"ready": True})


def test_with_tokens_pages_are_open_and_what_they_ask_for_is_not(folder: Path) -> None:
    (folder / "tokens").write_text("secret\n")
    with serving(folder, folder / "tiny", "--token-file", folder / "tokens") as server:
        assert [server.call("GET", path)[0] for path in (*OPEN, "/health")] == [200, 200, 200]
        asked = ("/v2", "/v2/models/tiny", "/metrics", "/openapi.json", "/docs/", "//", "/index.html")
        assert {server.call("GET", path)[0] for path in asked} == {401}
        assert b"tiny" not in server.call("GET", "/")[2]


def test_metadata_say_who_chats(pages: Server) -> None:
    told = {name: json.loads(pages.call("GET", f"/v2/models/{name}")[2])["parameters"] for name in ("tiny", "writer")}
    assert (told["tiny"]["chats"], told["writer"]["chats"]) == (False, True)


def test_a_log_has_the_url(pages: Server) -> None:
    (start,) = [line for line in pages.log() if line["event"] == "start"]
    assert start["url"] == f"http://127.0.0.1:{pages.port}/"


@pytest.mark.parametrize(
    ("host", "url"), [("0.0.0.0", r"http://127\.0\.0\.1:\d+/"), ("::1", r"http://\[::1\]:\d+/")], ids=["all", "v6"]
)
def test_a_terminal_is_told_where_to_look(folder: Path, host: str, url: str) -> None:
    """A line that people read, once clients are answered."""
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "eptx",
        "serve",
        str(folder / "tiny"),
        "--port",
        "0",
        "--host",
        host,
    ]
    with subprocess.Popen(command, stderr=theirs, env={**os.environ, "PYTHONSAFEPATH": "1"}) as process:
        os.close(theirs)
        try:
            said = ""
            while "listening" not in said or not said.endswith("\n"):
                said += os.read(ours, 4096).decode()
            lines = said.splitlines()
            assert re.fullmatch(rf"\d\d:\d\d:\d\d listening on {url} for tiny; Ctrl-C ends", lines[-1]), said
            assert any(re.search(r" loaded model tiny provider cpu", line) for line in lines)
            assert (" warning: anyone who reaches this address" in said) == (host == "0.0.0.0")
        finally:
            process.terminate()
            process.wait(20)
            os.close(ours)


def test_logs_for_people_escape_what_commands_a_terminal() -> None:
    import logging

    from eptx.runtime.serving.http.logs import ForPeople

    record = logging.LogRecord("x", logging.ERROR, "", 0, "request failed", None, None)
    record.fields = {"path": "/\x1b[2J\nnew", "nodes": None, "kernels": {"running": True, "reason": None}}
    assert ForPeople().format(record)[9:] == r"error: request failed path /\x1b[2J\nnew kernels (running True)"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with Browser() as started:
        yield started


def choose(page: Opened, **values: str) -> None:
    """Chooses or types values, as a reader does, and tells the page."""
    for name, value in values.items():
        page.evaluate(f"byId('{name}').value = {json.dumps(value)}; byId('{name}').dispatchEvent(new Event('change'))")


def sent(page: Opened) -> str:
    """Sends the form with the keyboard; the answer, or what is said instead of one."""
    key = "new KeyboardEvent('keydown', {key: 'Enter', ctrlKey: true, bubbles: true})"
    page.evaluate(f"byId('first').dispatchEvent({key})")
    until(
        page,
        "running === null && (byId('failed').textContent || byId('answer').textContent || byId('chat').textContent)",
    )
    return str(page.evaluate("byId('failed').innerText + byId('chat').innerText + byId('answer').innerText"))


def opened(chromium: Browser, server: Server, width: int = 1280, path: str = "/", **how: Any) -> Opened:
    page = chromium.open(f"http://{server.url}{path}", width=width, **how)
    until(page, "document.querySelector('#models .card, #paths details') !== null")
    return page


def run_in_a_shell(page: Opened) -> Any:
    """What the shell command gives that the page shows."""
    command = page.evaluate("byId('curl').textContent").replace('"stream": true', '"stream": false')
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=30)
    return json.loads(done.stdout)


#: The form's parts without a name for those who cannot see them.
UNNAMED = "[...document.querySelectorAll('input, select, textarea')].filter(e => !e.labels.length).length"


@in_browser
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)], ids=["phone", "desktop"])
def test_the_page_classifies_as_the_session_does(
    width: int, dark: bool, chromium: Browser, pages: Server, folder: Path
) -> None:
    page = opened(chromium, pages, width, dark=dark)
    choose(page, model="tiny", first="a good film")
    sent(page)
    session = Session(folder / "tiny", threads=1)
    tasks = ["sst2", "mnli", "stsb"]
    expected = session.run(["a good film"] * 3, tasks)
    cards = page.evaluate(
        "[...document.querySelectorAll('#answer .card')].map(c => [c.querySelector('h3').innerText, "
        "c.querySelector('.result').innerText, [...c.querySelectorAll('meter')].map(m => m.value)])"
    )
    assert [card[0] for card in cards] == tasks
    assert [card[1] for card in cards[:2]] == list(expected.labels[:2])
    assert float(cards[2][1]) == pytest.approx(float(expected.logits[2][0]), abs=1e-4)
    for card, logits in zip(cards[:2], expected.logits, strict=False):
        likely = np.exp(logits) / np.exp(logits).sum()
        assert card[2] == pytest.approx(likely.tolist(), abs=1e-5)
    assert page.evaluate(UNNAMED) == 0
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert page.messages == [] and all(url.startswith((f"http://{pages.url}/", "data:")) for url in page.requests)
    assert re.search(r"tiny\s+mixed\s+\d+", page.evaluate("byId('metrics').innerText"))
    page.close()


@in_browser
def test_names_labels_and_answers_stay_text(chromium: Browser, pages: Server) -> None:
    page = opened(chromium, pages)
    choose(page, model="hostile", first="a good film")
    assert HOSTILE in sent(page)
    choose(page, model="writer", most="8", first="hello")
    first = sent(page)
    assert "hello" in first and HOSTILE in first
    choose(page, kind="prompt", first="hello", task="loud")
    assert HOSTILE in sent(page)
    choose(page, model="hostile", task=HOSTILE, first="it's 'good'; $(film)")
    sent(page)
    outputs = {output["name"]: output["data"] for output in run_in_a_shell(page)["outputs"]}
    assert outputs["task"] == [HOSTILE]
    assert page.evaluate("document.title") == "eptx serve"
    assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0
    assert page.messages == []
    page.close()


@in_browser
def test_a_chat_goes_on_and_begins_anew(chromium: Browser, pages: Server) -> None:
    page = opened(chromium, pages)
    choose(page, model="writer", most="4", first="first")
    assert page.evaluate("byId('kind').value") == "chat"
    sent(page)
    choose(page, first="second")
    sent(page)
    assert page.evaluate("[...document.querySelectorAll('#chat b')].map(b => b.innerText)") == ["user", "assistant"] * 2
    assert page.evaluate("messages.map(m => m.content).filter((_, i) => i % 2 === 0)") == ["first", "second"]
    asked = run_in_a_shell(page)
    assert asked["choices"][0]["message"]["content"] == page.evaluate("messages.at(-1).content")
    page.evaluate("byId('anew').click()")
    assert page.evaluate("messages.length + byId('chat').childElementCount") == 0
    page.close()


@in_browser
def test_refusals_are_shown_in_the_servers_words(chromium: Browser, pages: Server) -> None:
    page = opened(chromium, pages)
    choose(page, model="writer", most="100000", first="hello")
    assert "max_tokens" in sent(page) or "tokens" in page.evaluate("byId('failed').innerText")
    assert not page.evaluate("byId('send').disabled")
    page.close()


@in_browser
def test_a_token_is_asked_for_and_kept_for_this_tab(chromium: Browser, folder: Path) -> None:
    (folder / "tokens").write_text("secret\n")
    with serving(folder, folder / "tiny", "--token-file", folder / "tokens") as server:
        page = chromium.open(f"http://{server.url}/", width=390)
        until(page, "!byId('token-form').hidden")
        page.evaluate("byId('token').value = 'secret'; byId('token-form').requestSubmit()")
        until(page, "document.querySelector('#models .card') !== null")
        choose(page, first="a good film")
        assert "positive" in sent(page) or "negative" in sent(page)
        assert "secret" not in page.evaluate("document.body.innerText")
        page.close()


@in_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_docs_show_every_path_of_the_description(width: int, chromium: Browser, pages: Server) -> None:
    page = opened(chromium, pages, width, "/docs")
    described = json.loads(pages.call("GET", "/openapi.json")[2])["paths"]
    shown = page.evaluate("[...document.querySelectorAll('#paths details')].map(d => d.id)")
    assert shown == [f"{method}{path}" for path, methods in described.items() for method in methods]
    page.evaluate("document.querySelectorAll('#paths details').forEach(d => { d.open = true })")
    text = page.evaluate("document.body.innerText")
    assert "X-Request-Timeout-Ms" in text and "The queue is full." in text and '"datatype"' in text
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert page.messages == []
    page.close()
