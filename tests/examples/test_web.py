"""The example for Node and browsers: a real Node, a real Chromium, and Python's answers to hold theirs against."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eptx import Session, read_bundle
from eptx.bundle import Bundle
from eptx.runtime.requests.tokenizer import Tokenizer
from tests.examples.web import ROOT, WEB, in_browser, needs_node, node, served, served_plainly, until
from tests.support.browser import Browser, Opened
from tests.support.minilm import EPT, minilm
from tests.support.tiny_bundle import write_tiny

pytestmark = needs_node

WORD = "word "
TEXTS = [
    "a fine film",
    "",
    "   ",
    "Café déjà vu, naïve Ångström: résumé",
    "日本語のテキスト、中文。 한국어 漢字",
    "🎬 great 👩‍👩‍👧 film 🇩🇪! #️⃣ ❤️",
    "supercalifragilisticexpialidocious" * 5,
    "x" * 100,
    "x" * 101,
    "é" * 101,
    "e\u0301 n\u0303 a\u0300\u0301\u0302",
    "a\x00b\ufffdc\u200bd\u00ade \x7f \x1b",
    "tab\tnew\nline\r\n\u00a0nbsp\u3000wide\u2028line\u2029paragraph",
    "it's don't “quotes” ‘single’ — dash… a—b",
    "https://example.com/?q=1&x=%20#frag user@mail.com",
    "$100 £5 €3 ¥7 +-=<>^`|~ C++ C# .NET ___under_score___",
    "[CLS] [SEP][SEP]x[MASK]y [PAD] [UNK] [unused1] [cls]",
    "İstanbul ıI ß ẞ ﬁ ﬀ ŉ ǰ ﷽",
    "ǅ ⅷ Ⅷ ① ½ ² ™ Ω K Å µ",
    "𝓕𝓪𝓷𝓬𝔂 𝟘𝟙 𐐀 𠀀 㐀",
    "नमस्ते สวัสดี العربية עִבְרִית Привет Ёё",
    "ΣΊΣΥΦΟΣ ελληνικά ς",
    "ﾊﾝｶｸ カタカナ ｶﾞ ٣٢١ ꭰ",
    "\ue000 private \U000f0000",
    WORD * 700,
    WORD * 510,
    WORD * 511,
]
#: Around where both texts of a pair have to be cut: 509 tokens are left for the two.
PAIRS = [
    ("a good film", "a bad film"),
    ("", ""),
    ("", "x"),
    ("x", ""),
    ("日本", "Café 🎬"),
    *(
        (WORD * a, WORD * b)
        for a, b in ((700, 1), (1, 700), (700, 700), (254, 255), (255, 254), (255, 255), (254, 400))
    ),
    *((WORD * a, WORD * b) for a, b in ((255, 400), (400, 254), (400, 255), (100, 600), (508, 1), (509, 1), (1, 509))),
]
TASKS = ["cola", "mnli", "mrpc", "qnli", "rte", "sst2", "stsb"]
ROWS: list[dict[str, str]] = [
    {"task": "sst2", "text": "a gorgeous, witty film"},
    {"task": "stsb", "text": "A man plays the guitar.", "text_pair": "Someone is playing an instrument."},
    {"task": "mnli", "text": "The shop is open daily.", "text_pair": "The shop is closed on Sundays."},
    {"task": "cola", "text": "Them was happily 🎬 naïve."},
    {"task": "qnli", "text": "Who wrote it?", "text_pair": "The book was written by Ann in 1920."},
    {"task": "mrpc", "text": "He said it.", "text_pair": WORD * 60},
    {"task": "rte", "text": "It rains.", "text_pair": ""},
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """MiniLM with seven tasks: the demo's, where it was run."""
    made = ROOT / "build" / "demo" / "conditioned"
    if not (made / "eptx.json").exists():
        from eptx import ExportOptions, export

        made = tmp_path_factory.mktemp("bundle") / "minilm"
        export(minilm(), [EPT], made, ExportOptions(mode="conditioned"))
    return read_bundle(made, verify=False)


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> Session:
    return Session(bundle, threads=2)


@pytest.fixture(scope="module")
def site(example: Path, bundle: Bundle) -> Path:
    """The example with the bundle in it."""
    done = node(example, "prepare.mjs", str(bundle.path))
    assert (done.returncode, done.stderr) == (0, "")
    return example


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def _python(session: Session, rows: list[dict[str, str]]) -> list[np.ndarray]:
    """Each row's logits, of one batch. The runtime takes pairs or single texts in a batch, so it is given arrays."""
    tokenizer = Tokenizer(session.bundle)
    encoded = [tokenizer([(r["text"], r["text_pair"])] if "text_pair" in r else [r["text"]]) for r in rows]
    length = max(e["input_ids"].shape[1] for e in encoded)
    padded = {
        k: np.concatenate([np.pad(e[k], ((0, 0), (0, length - e[k].shape[1]))) for e in encoded]) for k in encoded[0]
    }
    return session.run(padded, [row["task"] for row in rows]).logits


def test_tokens_are_pythons(example: Path, bundle: Bundle) -> None:
    script = """
import { readFileSync } from "node:fs";
import { Tokenizer } from "@huggingface/tokenizers";
import { Text } from "./public/text.js";
const [folder, ...names] = process.argv.slice(2);
const [manifest, tokenizer, tokenizerConfig] = names.map((name) => JSON.parse(readFileSync(`${folder}/${name}`)));
const text = new Text(Tokenizer, { manifest, tokenizer, tokenizerConfig });
const rows = JSON.parse(readFileSync(0));
console.log(JSON.stringify(rows.map((row) => text.encode(...row))));
const { dims, columns } = text.batch([{ text: "a b c" }, { text: "a", text_pair: "b" }, { text: "" }]);
console.log(JSON.stringify([dims, columns.input_ids, columns.attention_mask, columns.token_type_ids]));
"""
    (example / "tokens.mjs").write_text(script)
    rows = [[text] for text in TEXTS] + [list(pair) for pair in PAIRS]
    done = subprocess.run(
        ["node", "tokens.mjs", str(bundle.path), "eptx.json", "tokenizer.json", "tokenizer_config.json"],
        cwd=example,
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    encoded, batch = map(json.loads, done.stdout.splitlines())
    python = Tokenizer(bundle)
    for row, found in zip(rows, encoded, strict=True):
        wanted = python([row[0] if len(row) == 1 else (row[0], row[1])])
        assert found["ids"] == wanted["input_ids"][0].tolist(), row
        assert found["types"] == wanted["token_type_ids"][0].tolist(), row
    assert batch[0] == [3, 5]
    assert batch[2:] == [[1] * 10 + [1, 1, 0, 0, 0], [0] * 8 + [1, 1] + [0] * 5]
    assert batch[1][10:] == [*python([""])["input_ids"][0].tolist(), 0, 0, 0]


def test_nodes_answers_are_pythons(example: Path, session: Session, tmp_path: Path) -> None:
    rows = ROWS + [{"task": task, "text": text} for task in TASKS for text in TEXTS[:12]]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = node(example, "node.mjs", str(session.bundle.path), "--input", str(tmp_path / "rows.jsonl"))
    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    tasks = {task.name: task for task in session.manifest.tasks}
    for row, answer, logits in zip(rows, answers, _python(session, rows), strict=True):
        assert answer["task"] == row["task"]
        np.testing.assert_allclose(answer["logits"], logits, atol=1e-4)
        names = tasks[row["task"]].label_names
        assert names is not None
        if len(names) == 1:
            assert answer["value"] == answer["logits"][0]
        else:
            assert answer["label"] == names[int(logits.argmax())]
            assert [label["name"] for label in answer["labels"]] == list(names)
            np.testing.assert_allclose([p["probability"] for p in answer["labels"]], _softmax(logits), atol=1e-4)


def test_the_command_of_the_readme(example: Path, bundle: Bundle) -> None:
    done = node(example, "node.mjs", str(bundle.path), "sst2,stsb,mnli", "A fine film.", "A good movie.")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("sst2: positive (negative ") and lines[1].startswith("stsb: similarity ")
    assert lines[3].startswith("3 rows of 11 tokens in one batch, ")


def test_what_does_not_fit_is_one_line(example: Path, bundle: Bundle, tmp_path: Path) -> None:
    static = str(write_tiny(tmp_path / "static", "static", tokenizer=True).path)
    wordless = str(write_tiny(tmp_path / "wordless").path)
    for script, arguments, line in (
        ("node.mjs", [str(bundle.path), "nli", "x"], "error: no task nli; this bundle has cola, mnli,"),
        ("node.mjs", [static, "mnli", "x"], "error: this bundle is static; the example needs conditioned"),
        ("node.mjs", [str(bundle.path)], "error: usage: node node.mjs BUNDLE TASK"),
        ("prepare.mjs", [wordless], "error: this bundle has no tokenizer.json"),
        ("prepare.mjs", [], "error: usage: node prepare.mjs BUNDLE"),
        ("prepare.mjs", [str(tmp_path / "absent")], "error: ENOENT"),
    ):
        done = node(example, script, *arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert done.stderr.startswith(line)


_READY = "document.querySelectorAll('#tasks input').length > 0 && !document.getElementById('run').disabled"


def _open(chromium: Browser, address: str, width: int) -> Opened:
    page = chromium.open(address, width=width)
    until(page, _READY)
    return page


_ANSWERS = """[...document.querySelectorAll('.answer')].map((card) => [
  card.dataset.task,
  card.querySelector('h3 span').textContent,
  [...card.querySelectorAll('.bar, .number')].map((e) => Number(e.title)),
  [...card.querySelectorAll('.bar')].map((e) => [...e.querySelectorAll('span')].map((s) => s.textContent)),
])"""


def _ask(page: Opened, text: str, second: str, tasks: list[str]) -> list[Any]:
    """Fills the form as a user does, sends it, and reads the cards."""
    page.evaluate(f"""{{
      document.getElementById('text').value = {json.dumps(text)};
      document.getElementById('second').value = {json.dumps(second)};
      const tasks = {json.dumps(tasks)};
      for (const box of document.querySelectorAll('#tasks input')) box.checked = tasks.includes(box.value);
      document.getElementById('answers').replaceChildren();
      document.getElementById('run').click();
    }}""")
    until(page, "document.querySelectorAll('.answer').length > 0 && !document.getElementById('run').disabled")
    answers: list[Any] = page.evaluate(_ANSWERS)
    return answers


def _check_answers(answers: list[Any], session: Session, rows: list[dict[str, str]]) -> None:
    names = {task.name: task.label_names or () for task in session.manifest.tasks}
    assert [answer[0] for answer in answers] == [row["task"] for row in rows]
    for (task, label, numbers, bars), logits in zip(answers, _python(session, rows), strict=True):
        wanted = logits if len(logits) == 1 else _softmax(logits)
        np.testing.assert_allclose(numbers, wanted, atol=1e-4)
        assert label == names[task][int(logits.argmax())]
        shown = [] if len(logits) == 1 else zip(names[task], numbers, strict=True)
        assert bars == [[name, f"{100 * number:.1f} %"] for name, number in shown]


@in_browser
def test_the_page_answers_as_python_does(site: Path, session: Session, chromium: Browser) -> None:
    with served(site) as address:
        page = _open(chromium, address, width=1100)
        assert page.evaluate("crossOriginIsolated")
        assert page.evaluate("[...document.querySelectorAll('#tasks input')].map((box) => box.value)") == TASKS
        for text, second, tasks in (
            ("A fine film 🎬, naïve.", "It is a good movie.", TASKS),
            ("ΣΊΣΥΦΟΣ rolls the stone.", "", TASKS),
            (WORD * 600, "", ["cola", "stsb"]),
        ):
            rows = [{"task": task, "text": text} | ({"text_pair": second} if second else {}) for task in tasks]
            _check_answers(_ask(page, text, second, tasks), session, rows)
        assert session.manifest.text is not None
        assert page.evaluate("document.getElementById('took').textContent").startswith(
            f"2 rows of {session.manifest.text.max_length} tokens in one batch, "
        )
        page.evaluate("document.querySelectorAll('#tasks input:checked').forEach((box) => box.click())")
        assert page.evaluate("document.getElementById('run').disabled")
        page.evaluate("document.getElementById('all').click()")
        assert page.evaluate("document.querySelectorAll('#tasks input:checked').length") == len(TASKS)
        assert not page.evaluate("document.getElementById('run').disabled")
        _check_offline(page, address)
        page.close()


@in_browser
def test_any_web_server_will_do(site: Path, session: Session, chromium: Browser) -> None:
    with served_plainly(site / "public") as address:
        page = _open(chromium, address, width=390)
        assert not page.evaluate("crossOriginIsolated")
        _check_answers(_ask(page, "dull", "", ["sst2"]), session, [{"task": "sst2", "text": "dull"}])
        assert page.evaluate("document.getElementById('took').textContent").startswith("1 row of 3 tokens")
        _check_offline(page, address)
        page.close()


def _check_offline(page: Opened, address: str) -> None:
    """Nothing on the console, and nothing asked of any other server."""
    assert page.messages == []
    assert [url for url in page.requests if not url.startswith((address, "data:"))] == []
    assert f"{address}bundle/model.onnx.data" in page.requests


@in_browser
def test_the_bar_moves_while_weights_load(site: Path, chromium: Browser) -> None:
    """Notes down the bar and what stands above it, whenever the bar changes."""
    watch = """addEventListener('DOMContentLoaded', () => {
      window.seen = [];
      const [bar, status] = ['progress', 'status'].map((id) => document.getElementById(id));
      new MutationObserver(() => seen.push([bar.value, status.textContent])).observe(bar, { attributes: true });
    })"""
    with served(site) as address:
        page = chromium.open("about:blank", width=390)
        chromium.call("Page.addScriptToEvaluateOnNewDocument", page.session, source=watch)
        chromium.call("Page.navigate", page.session, url=address)
        until(page, _READY)
        values, texts = zip(*page.evaluate("seen"), strict=True)
        assert len(values) > 10 and sorted(values) == list(values) and values[0] < 0.5 and values[-1] == 1
        assert all(text.startswith("Loading the model: ") for text in texts[:-1])
        assert page.evaluate("document.getElementById('loading').hidden")
        page.close()


@in_browser
def test_the_page_fits_phones_and_desks_by_day_and_night(site: Path, chromium: Browser, tmp_path: Path) -> None:
    with served(site) as address:
        page = _open(chromium, address, width=390)
        _ask(page, "The food was excellent, " + "x" * 200, "", TASKS)
        for width, dark in ((390, False), (390, True), (1100, True), (1100, False)):
            chromium.show(page, width=width, dark=dark)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            color = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, color.removeprefix("rgb(").rstrip(")").split(","))) < 200) is dark
            page.screenshot(tmp_path / f"{width}{'-dark' * dark}.png")
        page.close()


@in_browser
def test_the_page_says_what_is_wrong(example: Path, site: Path, chromium: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "public"
    shutil.copytree(site / "public", folder)
    with served_plainly(folder) as address:

        def said() -> str:
            page = chromium.open(address, width=390)
            until(page, "document.getElementById('loading').className === 'failed'")
            assert page.evaluate("document.getElementById('run').disabled")
            status = str(page.evaluate("document.getElementById('status').textContent"))
            page.close()
            return status

        weights = folder / "bundle" / "model.onnx.data"
        size = weights.stat().st_size
        with weights.open("r+b") as file:
            file.truncate(size - 1)
        assert said() == f"model.onnx.data: ends after {size - 1} of {size} bytes"
        weights.unlink()
        assert said() == "model.onnx.data: the server answers 404; run prepare.mjs first"
        manifest = json.loads((folder / "bundle" / "eptx.json").read_text())
        (folder / "bundle" / "eptx.json").write_text(json.dumps(manifest | {"mode": "dynamic"}))
        assert said() == "this bundle is dynamic; the example needs conditioned"
        shutil.rmtree(folder / "bundle")
        assert said() == "there is no bundle here; run prepare.mjs first"


def test_the_server_stays_inside(site: Path) -> None:
    with served(site) as address:
        port = int(address.rstrip("/").rpartition(":")[2])

        def status(target: str, method: str = "GET") -> int:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(f"{method} {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                return int(client.makefile("rb").readline().split()[1])

        assert status("/") == status("/bundle/eptx.json") == status("/app.js", "HEAD") == 200
        for target in (
            "/../package.json",
            "/%2e%2e/package.json",
            "/..%2fpackage.json",
            "//[",
            "/" + "x" * 5000,
            "/bundle",
        ):
            assert status(target) == 404
        assert status("/", "POST") == 404
        assert status("/") == 200


def test_the_lock_file_names_no_host() -> None:
    lock = json.loads((WEB / "package-lock.json").read_text())
    assert all("resolved" not in package for package in lock["packages"].values())
    pinned = json.loads((WEB / "package.json").read_text())["dependencies"]
    assert {name: lock["packages"][f"node_modules/{name}"]["version"] for name in pinned} == pinned
