"""``eptx run`` says what transformers' ``text-classification`` pipeline says of PEFT's own model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from tests.malformed.scene import Cli
from tests.runtime.generation.test_run_chat import Terminal
from tests.support.classifiers import PAIRS, TASKS, Made, write_classifiers
from tests.support.tiny_bundle import write_tiny


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return write_classifiers(tmp_path_factory.mktemp("made"))


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capfd)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "bundle", tokenizer=True)


@pytest.mark.parametrize("task", TASKS)
def test_pairs(made: Made, cli: Cli, task: str) -> None:
    pairs = [word for pair in PAIRS for word in ("--pair", *pair)]
    rows = json.loads(cli("run", made.path, "--task", task, *pairs, "--json").out)
    lines = cli("run", made.path, "--task", task, *pairs).out.splitlines()
    for pair, row, line in zip(PAIRS, rows, lines, strict=True):
        wanted = {each["label"]: each["score"] for each in made.says[task](pair)}
        best = max(wanted, key=wanted.__getitem__)
        assert (row["text"], row["text_pair"], row["task"]) == (*pair, task)
        assert line.endswith(f"  {pair[0]} | {pair[1]}")
        if task == "similarity":
            assert row["label"] == pytest.approx(wanted["score"], abs=1e-5)
            assert row["logits"] == [row["label"]]
            assert line.split()[:2] == [task, f"{row['label']:.4f}"]
            continue
        found = {each["label"]: each["score"] for each in row["scores"]}
        assert list(found) == TASKS[task][1]
        np.testing.assert_allclose([found[name] for name in wanted], list(wanted.values()), atol=1e-5)
        if task == "nli":
            assert (row["label"], row["score"]) == (best, found[best])
            assert line.split()[:3] == [task, best, f"{found[best]:.4f}"]
        else:
            above = [name for name in TASKS[task][1] if wanted[name] > 0.5]
            assert row["label"] == above
            said = ", ".join(f"{name} {found[name]:.4f}" for name in above) or "none"
            assert line.split("  ")[1:-1][-1] == said


def test_a_table_in_columns(made: Made, cli: Cli, tmp_path: Path) -> None:
    """Labels and scores stand under each other, whatever the task."""
    file = tmp_path / "rows.csv"
    file.write_text('text,text_pair,task\n"Ada, the long text",,nli\nsea,the sea,similarity\n', "utf-8-sig")
    nli, similarity = cli("run", made.path, "--input", file).out.splitlines()
    at = nli.index("  Ada, the long text")
    assert at == len("similarity  contradiction  0.1234")  # the longest names of tasks and labels
    assert similarity[at:] == "  sea | the sea"
    assert nli.index("0.") == at - 6
    assert similarity[: at - 6].split()[0] == "similarity" and not similarity[at - 6 : at].strip()


def test_what_has_no_head(made: Made, cli: Cli) -> None:
    """What the base computes of a text, without the padding that a longer one gives it."""
    folder, base = made.path.parent, made.path.parent / "base"
    with quiet(), torch.no_grad():
        bare = transformers.BertModel.from_pretrained(base).eval()
        text = transformers.AutoTokenizer.from_pretrained(base)("London", return_tensors="pt")
        hidden = bare(**text).last_hidden_state[0]
        get_peft_model(bare, LoraConfig(r=2, target_modules=["query"])).save_pretrained(folder / "plain")
        export_bundle(base, [folder / "plain"], folder / "features", ExportOptions(mode="conditioned"))
    asked = ("run", folder / "features", "--task", "base", "London", "a long text near the sea")
    row = json.loads(cli(*asked, "--json").out)[0]
    assert (row["task"], row["features"]["output"], row["features"]["shape"]) == ("base", "last_hidden_state", [3, 16])
    np.testing.assert_allclose(row["features"]["first"], hidden.ravel()[:4].tolist(), atol=1e-5)
    shown = " ".join(f"{value:.4f}" for value in row["features"]["first"])
    assert cli(*asked).out.splitlines()[0] == f"base   last_hidden_state [3, 16] {shown} ...  London"


def test_escapes_of_arguments(tiny: Bundle, cli: Cli, tmp_path: Path) -> None:
    def texts(*arguments: str | Path) -> list[str]:
        return [row["text"] for row in json.loads(cli("run", tiny.path, "--task", "sst2", "--json", *arguments).out)]

    asked = ("good\\nfilm", "a\\tbook", "C:\\\\new", "\\d", "end\\")
    assert texts(*asked) == ["good\nfilm", "a\tbook", "C:\\new", "\\d", "end\\"]
    assert texts("--no-escape", *asked) == list(asked)
    file = tmp_path / "prompts.txt"
    file.write_text("good\\nfilm\n\nC:\\new\r\nlast", encoding="utf-8-sig")
    assert texts("--input", file) == ["good\\nfilm", "", "C:\\new", "last"]


@pytest.mark.parametrize(
    "content, said",
    [
        (b"sentence\ngood\n", "its first line must name the columns, and 'text' among them"),
        (b"", "its first line must name the columns"),
        (b"text,task\ngood\n", "line 2: has another number of columns"),
        (b"text\ngood,film\n", "line 2: has another number of columns"),
        (b'text\n"good\n', "line 2: unexpected end of data"),
        (b"text\ngood\n\xff\n", "not UTF-8 text"),
    ],
)
def test_tables_that_are_none(tiny: Bundle, cli: Cli, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    result = cli("run", tiny.path, "--task", "sst2", "--input", tmp_path / "rows.csv")
    assert (result.code, len(result.err.splitlines())) == (3, 1)
    assert result.err.startswith("error: rows.csv") and said in result.err


def test_a_terminal_is_told_what_to_do(tiny: Bundle) -> None:
    """Each text that is typed is answered at once; one that is wrong does not end it."""
    terminal = Terminal(tiny.path)
    terminal.until(b"type a text and press Enter; Ctrl-D ends.")
    terminal.until(b"> ")
    terminal.type(b"good film\r")
    terminal.until(b"error: name a task: sst2, mnli, stsb, base")
    terminal.until(b"> ")
    terminal.type(b"\x04")
    assert terminal.code() == 0
    terminal = Terminal(tiny.path, "--task", "sst2")
    terminal.until(b"> ")
    terminal.type(b"good film\r")
    assert b"0." in terminal.until(b"good film\r\n> ")
    terminal.type(b"\x04")
    assert terminal.code() == 0


def test_a_pipe_is_told_nothing(tiny: Bundle) -> None:
    command = [sys.executable, "-m", "eptx", "run", tiny.path, "--task", "sst2", "-q"]
    done = subprocess.run(command, input=b"good film\nbad\n", capture_output=True, check=True, env=dict(os.environ))
    assert (len(done.stdout.splitlines()), done.stderr) == (2, b"")
