"""``eptx run`` on language models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from eptx import Session
from tests.malformed.scene import Cli
from tests.runtime.generation.conftest import Workshop

TEXTS = ["w10 w11 w12", "w7"]


@pytest.fixture
def folder(workshop: Workshop) -> Path:
    return workshop.bundle("ept").path


@pytest.fixture(scope="module")
def session(workshop: Workshop) -> Session:
    return Session(workshop.bundle("ept"))


def test_one_text(folder: Path, session: Session, cli: Cli) -> None:
    made = session.generate(TEXTS[0], "task1", max_new_tokens=6)
    result = cli("run", folder, TEXTS[0], "--task", "task1", "--max-new-tokens", "6")
    assert (result.code, result.out) == (0, made.texts[0] + "\n")
    assert result.err.startswith("provider cpu, ")
    assert len(result.err.splitlines()) == 1
    assert cli("run", folder, TEXTS[0], "--task", "task1", "--max-new-tokens", "6", "--quiet").err == ""


def test_several_texts(folder: Path, session: Session, cli: Cli) -> None:
    made = session.generate(TEXTS, "task1", max_new_tokens=6)
    result = cli("run", folder, *TEXTS, "--task", "task1", "--max-new-tokens", "6")
    want = [f"task1\t{answer}\t{text}" for answer, text in zip(made.texts, TEXTS, strict=True)]
    assert (result.code, result.out.splitlines()) == (0, want)


def test_rows_of_a_file_as_json(folder: Path, session: Session, cli: Cli, tmp_path: Path) -> None:
    rows = [{"text": text, "task": task} for text in TEXTS for task in ("task0", "task2", "base")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = cli(
        "run", folder, "--input", tmp_path / "rows.jsonl", "--json", "--batch-size", "4", "--max-new-tokens", "5"
    )
    assert result.code == 0
    made = json.loads(result.out)
    want = session.generate([row["text"] for row in rows], [row["task"] for row in rows], max_new_tokens=5)
    assert [row["answer"] for row in made] == list(want.texts)
    assert [(row["text"], row["task"]) for row in made] == [(row["text"], row["task"]) for row in rows]
    assert [row["finish_reason"] for row in made] == list(want.finish_reasons)
    assert [row["tokens"] for row in made] == [len(ids) for ids in want.token_ids]


def test_settings(folder: Path, session: Session, cli: Cli) -> None:
    settings = ("--temperature", "2", "--top-k", "50", "--top-p", "0.95", "--seed", "5", "--max-new-tokens", "9")
    made = session.generate(TEXTS[0], "base", temperature=2, top_k=50, top_p=0.95, seed=5, max_new_tokens=9)
    assert cli("run", folder, TEXTS[0], "--task", "base", *settings).out == made.texts[0] + "\n"
    stop = made.texts[0].split()[3]
    cut = made.texts[0][: made.texts[0].index(stop)]
    assert cli("run", folder, TEXTS[0], "--task", "base", *settings, "--stop", "zz", "--stop", stop).out == cut + "\n"


def test_it_comes_as_it_is_made(folder: Path) -> None:
    """The first words are there before the last ones are made."""
    command = [sys.executable, "-m", "eptx", "run", folder, TEXTS[0], "--task", "task1", "--max-new-tokens", "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        reads = []
        while block := process.stdout.read1(4096):  # type: ignore[attr-defined]
            reads.append(block)
    assert process.returncode == 0
    assert len(reads) > 5
    assert b"".join(reads).endswith(b"\n")
