"""`Session.embed` and ``eptx run --embed`` give what sentence-transformers gives, of any number of rows, in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from click.testing import CliRunner
from torch import nn

from eptx.bundle import Bundle, read_bundle
from eptx.cli.run import run
from eptx.errors import RequestError
from eptx.runtime import Session
from eptx.runtime.requests import embeddings, tokenizer
from tests.support.sentences import TEXTS, dense, encoded, write_embedder, write_sentence
from tests.support.tiny_bundle import write_tiny

#: Many texts of many lengths, in no order of length.
MANY = [" ".join(TEXTS[2].split()[: 1 + (7 * i) % 13]) for i in range(50)]
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
MOST = 1e-5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_embedder(tmp_path_factory.mktemp("embed"), dense(32, 24, nn.Tanh()))


@pytest.fixture(scope="module")
def folder(made: tuple[Path, Path]) -> Path:
    return made[0]


@pytest.fixture(scope="module")
def bundle(made: tuple[Path, Path]) -> Bundle:
    return read_bundle(made[1])


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> Session:
    return Session(bundle, provider="cpu")


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_as_sentence_transformers(session: Session, folder: Path) -> None:
    found = session.embed(TEXTS)
    assert found.shape == (5, 24) and found.dtype == np.float32
    np.testing.assert_allclose(found, encoded(folder, TEXTS, normalize_embeddings=True), atol=MOST)
    np.testing.assert_allclose(session.embed(TEXTS, normalize=False), encoded(folder, TEXTS), atol=MOST)
    np.testing.assert_allclose(session.embed(TEXTS[0]), found[:1], atol=1e-6)


def test_the_first_dimensions(session: Session, folder: Path) -> None:
    wanted = encoded(folder, TEXTS, truncate_dim=8)
    np.testing.assert_allclose(session.embed(TEXTS, dimensions=8, normalize=False), wanted, atol=MOST)
    np.testing.assert_allclose(session.embed(TEXTS, dimensions=8), unit(wanted), atol=MOST)


@pytest.mark.parametrize("mode", MODES)
def test_a_pooling_of_the_callers(session: Session, folder: Path, tmp_path: Path, mode: str) -> None:
    other = write_sentence(folder.parent / "plain", tmp_path / "base", [mode])
    np.testing.assert_allclose(session.embed(TEXTS, pooling=mode, normalize=False), encoded(other, TEXTS), atol=MOST)


@pytest.mark.parametrize("tokens", [1, 40, 1 << 20])
def test_many_rows_keep_their_order(session: Session, folder: Path, tokens: int) -> None:
    wanted, runs = encoded(folder, MANY, normalize_embeddings=True), []
    run = session.run_checked

    def counted(arrays: Any) -> Any:
        runs.append(arrays["input_ids"].size)
        return run(arrays)

    with (
        mock.patch.object(embeddings, "TOKENS", tokens),
        mock.patch.object(tokenizer, "_SLICE", 20),
        mock.patch.object(session, "run_checked", counted),
    ):
        np.testing.assert_allclose(session.embed(MANY), wanted, atol=MOST)
        of_texts, _ = list(runs), runs.clear()
        arrays = session.check(MANY, "base")
        np.testing.assert_allclose(session.embed(arrays), wanted, atol=MOST)
    longest = arrays["input_ids"].shape[1]
    assert max(of_texts) <= max(tokens, longest) and max(runs) <= max(tokens, longest)
    assert len(of_texts) > 2 or tokens > 1000


def test_each_row_has_its_task(session: Session) -> None:
    tasks = ["base", "own"] * 25
    mixed = session.embed(MANY, tasks)
    for task in ("base", "own"):
        own = [i for i, name in enumerate(tasks) if name == task]
        np.testing.assert_allclose(mixed[own], session.embed(MANY, task)[own], atol=1e-6)
    assert np.abs(session.embed(MANY, "own") - session.embed(MANY)).max() > 1e-3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pooling": "sum"}, "no pooling 'sum'; there are cls, max"),
        ({"dimensions": 0}, "dimensions must be 1 to 24, not 0"),
        ({"dimensions": 25}, "dimensions must be 1 to 24, not 25"),
        ({"dimensions": True}, "dimensions must be 1 to 24, not True"),
        ({"task": "other"}, "no task 'other'"),
        ({"task": ["base"]}, "1 tasks for a batch of 5"),
        ({"inputs": []}, "the batch of texts is empty"),
        ({"inputs": [*MANY, 5]}, "text 50 is neither a string nor a pair"),
    ],
)
def test_refusals(session: Session, given: dict[str, Any], said: str) -> None:
    with mock.patch.object(tokenizer, "_SLICE", 20), pytest.raises(RequestError, match=said):
        session.embed(**{"inputs": TEXTS, **given})


def test_a_bundle_without_the_output(tmp_path: Path) -> None:
    session = Session(write_tiny(tmp_path / "tiny"), provider="cpu")
    ids = {"input_ids": np.array([[2, 4, 3], [2, 5, 3]])}
    with pytest.raises(RequestError, match="has no output embedding: name a pooling, one of cls"):
        session.embed(ids)
    hidden = session.run(ids, task="base")["last_hidden_state"]
    np.testing.assert_allclose(session.embed(ids, pooling="mean", normalize=False), hidden.mean(1), atol=1e-6)


def test_run_prints_a_line_for_each(bundle: Bundle, folder: Path) -> None:
    done = CliRunner().invoke(run, [str(bundle.path), "--embed", "-q", *TEXTS[:2]], catch_exceptions=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0 and [(line["text"], line["task"]) for line in lines] == [(t, "base") for t in TEXTS[:2]]
    wanted = encoded(folder, TEXTS[:2], normalize_embeddings=True)
    np.testing.assert_allclose([line["embedding"] for line in lines], wanted, atol=MOST)
    form = ["--pooling", "mean", "--dimensions", "5", "--no-normalize", "--task", "own", "--json"]
    arguments = [str(bundle.path), "--embed", "-q", *form, *TEXTS[:2]]
    done = CliRunner().invoke(run, arguments, catch_exceptions=False)
    assert [(len(line["embedding"]), line["task"]) for line in json.loads(done.stdout)] == [(5, "own")] * 2


@pytest.mark.parametrize("option", [["--pooling", "mean"], ["--dimensions", "3"], ["--no-normalize"]])
def test_its_options_need_it(bundle: Bundle, option: list[str]) -> None:
    done = CliRunner().invoke(run, [str(bundle.path), *option, "a"])
    assert done.exit_code == 2 and f"{option[0]} is for --embed" in done.stderr
