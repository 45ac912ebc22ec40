"""The example of a support desk: its own command, a real `eptx serve`, and a real Chromium."""

from __future__ import annotations

import http.client
import importlib.util
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from eptx import Session
from tests.support.browser import CHROMIUM, Browser, Opened

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "support_desk"
#: Where the example or the demo may have left a bundle with the desk's tasks.
MADE = ("support_desk", "demo/int8", "demo/conditioned")
CLAIM = "I can return sale items."
MESSAGES = [CLAIM, "When do I get my money back?", "Café déjà vu 🎬 <b>&amp;</b>", "x" * 300]

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("support_desk", EXAMPLE / "desk.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


desk = _load()
SHOP = desk.Shop.read(EXAMPLE / "shop.json")


@dataclass(frozen=True)
class Running:
    """The example's command, and where its two servers listen."""

    process: subprocess.Popen[str]
    port: int
    model_port: int

    @property
    def address(self) -> str:
        return f"http://localhost:{self.port}/"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in MADE:
        if (ROOT / "build" / name / "eptx.json").exists():
            return ROOT / "build" / name
    out = tmp_path_factory.mktemp("bundle") / "desk"
    subprocess.run([sys.executable, EXAMPLE / "prepare.py", out, "--precision", "fp32"], check=True)
    return out


@contextmanager
def _started(bundle: Path) -> Iterator[Running]:
    ports = _free_ports()
    command = [sys.executable, "-W", "error", EXAMPLE / "app.py", "--bundle", bundle]
    command += ["--port", str(ports[0]), "--model-port", str(ports[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"http://localhost:{ports[0]}/\n"
            _until(lambda: _listens(ports[0]))
            yield Running(process, *ports)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def running(bundle: Path) -> Iterator[Running]:
    with _started(bundle) as running:
        yield running


@pytest.fixture(scope="module")
def session(bundle: Path) -> Session:
    return Session(bundle)


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return one.getsockname()[1], two.getsockname()[1]


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _until(condition: Any, seconds: float = 30) -> None:
    end = monotonic() + seconds
    while not condition():
        assert monotonic() < end, "it did not happen"
        sleep(0.05)


def _call(port: int, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _runs(running: Running) -> tuple[float, float]:
    """How often the model has run, and how many rows that were."""
    _, text = _call(running.model_port, "GET", "/metrics")
    values = {
        line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in text.decode().splitlines() if line[:1] != "#"
    }
    return values.get("eptx_batch_rows_count", 0.0), values.get("eptx_batch_rows_sum", 0.0)


def _logits(session: Session, rows: Any) -> list[np.ndarray]:
    texts = [(row.text, row.text_pair) if row.text_pair else row.text for row in rows]
    return session.run(texts, [row.task for row in rows]).logits


def test_the_shop_is_complete() -> None:
    data = json.loads((EXAMPLE / "shop.json").read_text(encoding="utf-8"))
    assert (len(data["faq"]), len(data["policies"]), len(data["messages"])) == (12, 8, 12)
    assert all(entry["question"] and entry["answer"] for entry in data["faq"])
    assert all(len(message) <= 300 for message in data["messages"])


def test_a_message_is_one_batch_of_five_tasks() -> None:
    rows = desk.ask(SHOP, CLAIM)
    assert desk.tasks_of(rows) == {"sst2": 1, "stsb": 12, "mrpc": 12, "qnli": 8, "mnli": 8}
    request = desk.request(rows)
    text, pair = request["inputs"]
    assert text["shape"] == pair["shape"] == [41] and len(text["data"]) == len(pair["data"]) == 41
    assert request["parameters"]["tasks"] == [row.task for row in rows]
    assert (text["data"][0], pair["data"][0]) == (CLAIM, "")
    assert (text["data"][-1], pair["data"][-1]) == (SHOP.policies[-1], CLAIM)


def test_labels_are_the_bundles(session: Session) -> None:
    labels = {task.name: task.label_names for task in session.manifest.tasks}
    assert {task: labels[task] for task in desk.LABELS} == desk.LABELS


@pytest.mark.parametrize("message", MESSAGES)
def test_answers_are_the_sessions(running: Running, session: Session, message: str) -> None:
    rows = desk.ask(SHOP, message)
    wanted = _logits(session, rows)
    runs, answered = _runs(running)
    status, body = _call(running.model_port, "POST", "/v2/models/desk/infer", desk.request(rows))
    assert status == 200
    for found, logits in zip(desk.logits_of(json.loads(body), rows), wanted, strict=True):
        np.testing.assert_array_equal(np.array(found, np.float32), logits)
    status, body = _call(running.port, "POST", "/ask", {"message": f" {message}\n"[:300]})
    answer = json.loads(body)
    batch = answer.pop("batch")
    assert status == 200 and batch["rows"] == 41 and batch["milliseconds"] > 0
    assert batch["tasks"] == desk.tasks_of(rows)
    if len(message) < 300:
        assert answer == desk.answer(SHOP, message, [logits.tolist() for logits in wanted])
    assert _runs(running) == (runs + 2, answered + 82), "each request is one run"


def test_a_claim_is_held_against_its_policy(session: Session) -> None:
    for message, policy, verdict in (
        (CLAIM, "Sale items cannot be returned or exchanged.", "contradicts"),
        ("My lamp has a warranty of two years.", "All lamps have a warranty of two years.", "supports"),
        ("Have the lamps a warranty?", "All lamps have a warranty of two years.", "concerns"),
        ("What a beautiful blanket!", None, "silent"),
    ):
        logits = [row.tolist() for row in _logits(session, desk.ask(SHOP, message))]
        best = desk.answer(SHOP, message, logits)["policies"][0]
        assert best["verdict"] == verdict, best
        assert policy is None or best["policy"] == policy
        assert best["supports"] + best["neutral"] + best["contradicts"] == pytest.approx(1)


def test_the_best_stand_first(session: Session) -> None:
    message = "How do I send an item back?"
    answer = desk.answer(SHOP, message, [row.tolist() for row in _logits(session, desk.ask(SHOP, message))])
    assert answer["questions"][0]["question"] == "How do I return an item?"
    for name, key in (("questions", "match"), ("policies", "about")):
        scores = [entry[key] for entry in answer[name]]
        assert scores == sorted(scores, reverse=True) and 0 <= scores[-1] <= scores[0] <= 1


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"", 'send JSON: {"message": "a text"}'),
        (b"\xff", 'send JSON: {"message": "a text"}'),
        (b"[" * 100_000, 'send JSON: {"message": "a text"}'),
        ({"message": 1}, 'send JSON: {"message": "a text"}'),
        ({"message": " \n"}, 'send JSON: {"message": "a text"}'),
        ({"message": "x" * 301}, "the message has 301 characters; the desk reads 300"),
        ({"message": "\ud800"}, "the request: a string holds half of a surrogate pair"),
    ],
)
def test_what_does_not_fit_is_one_line(running: Running, body: Any, line: str) -> None:
    status, answer = _call(running.port, "POST", "/ask", body)
    assert (status, json.loads(answer)) == (400, {"error": line})


def test_nothing_but_the_page_is_served(running: Running) -> None:
    for path in ("/app.py", "/../app.py", "/%2e%2e/app.py", "/page/index.html", "/ask"):
        assert _call(running.port, "GET", path)[0] == 404


def test_sigterm_ends_both_servers(bundle: Path) -> None:
    with _started(bundle) as running:
        assert _listens(running.model_port)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
        assert not _listens(running.port) and not _listens(running.model_port)


def test_a_bundle_that_is_none_ends_it(tmp_path: Path) -> None:
    (tmp_path / "eptx.json").write_text("{}")
    one, two = _free_ports()
    command = [sys.executable, EXAMPLE / "app.py", "--bundle", tmp_path, "--port", str(one), "--model-port", str(two)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and done.stderr.endswith("eptx serve has ended; see above\n")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with Browser() as running:
        yield running


def _open(chromium: Browser, address: str, width: int) -> Opened:
    page = chromium.open(address, width=width)
    _until(lambda: page.evaluate("document.querySelectorAll('#samples button').length") == 12)
    return page


def _answered(page: Opened) -> bool:
    return bool(page.evaluate("!document.getElementById('send').disabled && document.getElementById('hint').hidden"))


def _type(chromium: Browser, page: Opened, message: str) -> None:
    """Types a message as a user does, and sends it with Enter."""
    page.evaluate("document.getElementById('message').focus(), document.getElementById('message').select()")
    chromium.call("Input.insertText", page.session, text=message)
    for kind in ("keyDown", "keyUp"):
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        chromium.call("Input.dispatchKeyEvent", page.session, type=kind, **key)
    _until(lambda: _answered(page))


def _shown(page: Opened, selector: str) -> Any:
    return page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")


def _check_quiet(page: Opened, address: str) -> None:
    """Nothing on the console, and nothing asked of any other server."""
    assert page.messages == []
    assert [url for url in page.requests if not url.startswith((address, "data:"))] == []


@in_browser
def test_the_page_answers_what_is_typed(running: Running, chromium: Browser) -> None:
    page = _open(chromium, running.address, width=1200)
    assert _shown(page, "h1") == "Alder & Pine support desk"
    assert page.evaluate("document.getElementById('cards').hidden")
    _type(chromium, page, CLAIM)
    answer = json.loads(_call(running.port, "POST", "/ask", {"message": CLAIM})[1])
    positive, best, policy = answer["positive"], answer["questions"][0], answer["policies"][0]
    assert _shown(page, "#mood b") == f"negative {100 * (1 - positive):.0f} %"
    assert _shown(page, "#question h3") == best["question"] and _shown(page, "#question .reply") == best["answer"]
    bars = "[...document.querySelectorAll('#question .bar, #policy .bar')].map((bar) => bar.children[1].textContent)"
    shares = [best["same"], policy["about"], *(policy[name] for name in ("supports", "neutral", "contradicts"))]
    assert page.evaluate(bars) == [f"{best['similarity']:.1f} of 5", *(f"{100 * share:.0f} %" for share in shares)]
    assert (_shown(page, "#policy blockquote"), _shown(page, "#policy b")) == (policy["policy"], "contradicts this")
    assert _shown(page, "#batch b").startswith("41 rows of 5 tasks in ")
    assert page.evaluate("document.querySelectorAll('#cells i').length") == 41
    assert page.requests.count(f"{running.address}ask") == 1
    _check_quiet(page, running.address)
    page.close()


@in_browser
def test_a_sample_is_answered_by_a_click(running: Running, chromium: Browser) -> None:
    page = _open(chromium, running.address, width=390)
    page.evaluate("document.querySelectorAll('#samples button')[10].click()")
    _until(lambda: _answered(page))
    assert _shown(page, "#policy b") == "supports this"
    _check_quiet(page, running.address)
    page.close()


@in_browser
def test_texts_are_no_markup_and_errors_are_told(running: Running, chromium: Browser) -> None:
    """Texts of the server, which here are markup, are shown as they are."""
    page = _open(chromium, running.address, width=390)
    page.evaluate("""{
      const real = fetch;
      const evil = '<img src=x onerror="window.hit = 1">';
      window.fetch = async (...args) => {
        const answer = await (await real(...args)).json();
        answer.questions[0] = { ...answer.questions[0], question: evil, answer: evil };
        answer.policies[0].policy = evil;
        return { ok: true, json: async () => answer };
      };
      window.restore = () => { window.fetch = real; };
    }""")
    _type(chromium, page, "<script>hit = 1</script>")
    evil = '<img src=x onerror="window.hit = 1">'
    assert _shown(page, "#question h3") == _shown(page, "#policy blockquote") == evil
    assert page.evaluate("document.querySelectorAll('#cards img').length + (window.hit ?? 0)") == 0
    page.evaluate("restore(), document.getElementById('message').removeAttribute('maxlength')")
    page.evaluate("document.getElementById('message').value = 'x'.repeat(301), document.getElementById('send').click()")
    _until(lambda: page.evaluate("!document.getElementById('error').hidden"))
    assert _shown(page, "#error") == "The desk cannot answer: the message has 301 characters; the desk reads 300"
    assert page.evaluate("document.getElementById('cards').hidden")
    page.close()


@in_browser
def test_the_page_fits_phones_and_desks_by_day_and_night(running: Running, chromium: Browser) -> None:
    page = _open(chromium, running.address, width=390)
    _type(chromium, page, "x" * 300)
    papers = set()
    for width, dark in ((390, False), (390, True), (1200, True), (1200, False)):
        chromium.show(page, width=width, dark=dark)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        papers.add((dark, page.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert len(papers) == len({paper for _, paper in papers}) == 2
    _check_quiet(page, running.address)
    page.close()
