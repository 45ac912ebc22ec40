"""Sessions on language models: streams and what they collect to, drawing, threads, and `run`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from eptx import Session
from eptx.runtime import Generated, Piece
from tests.runtime.generation.conftest import Workshop
from tests.support.trained import by_task

TEXTS = ["w10 w11 w12", "w7", "w50 w51 w52 w53 w54"]
TASKS = ["task0", "base", "task2"]


@pytest.fixture(scope="module")
def session(workshop: Workshop) -> Session:
    return Session(workshop.bundle("ept"), threads=1)


@pytest.fixture(scope="module")
def byte_session(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The model with tokens that are bytes, so that what it draws is full of half characters."""
    folder = Path(shutil.copytree(workshop.bundle("ept").path, tmp_path_factory.mktemp("bytes") / "b"))
    alphabet = [c for c in sorted(pre_tokenizers.ByteLevel.alphabet()) if not c.isalpha() or c > "z"][:116]
    vocabulary = {c: i for i, c in enumerate(["<pad>", "<s>", "</s>", "a", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>"])
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    return Session(replace(workshop.bundle("ept"), path=folder), threads=1)


def _ids(session: Session) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(session.bundle.path / "tokenizer.json"))
    return [tokenizer.encode(text).ids for text in TEXTS]


def _collected(pieces: Sequence[Piece], rows: int) -> list[tuple[str, tuple[int, ...]]]:
    own = [[piece for piece in pieces if piece.row == row] for row in range(rows)]
    return [("".join(p.text for p in row), tuple(p.token_id for p in row)) for row in own]


def test_text(session: Session) -> None:
    made = session.generate(TEXTS, TASKS, max_new_tokens=5)
    ids = _ids(session)
    assert made.token_ids == session.generate(ids, TASKS, max_new_tokens=5).token_ids
    special = {0, 1, 2, 3}
    for text, tokens in zip(made.texts, made.token_ids, strict=True):
        assert text.split() == [f"w{token}" for token in tokens if token not in special]
    assert session.generate(TEXTS[0], "task0", max_new_tokens=5).texts == made.texts[:1]
    arrays = [np.array(row, np.int32) for row in ids]
    assert session.generate(arrays, TASKS, max_new_tokens=5) == made


def test_a_stream_is_what_generate_collects(session: Session) -> None:
    stream = session.stream(TEXTS, TASKS, max_new_tokens=6)
    pieces = list(stream)
    made = session.generate(TEXTS, TASKS, max_new_tokens=6)
    assert [text for text, _ in _collected(pieces, 3)] == list(made.texts)
    assert [ids for _, ids in _collected(pieces, 3)] == list(made.token_ids)
    assert [piece.row for piece in pieces[:6]] == [0, 1, 2, 0, 1, 2]
    assert {piece.row: piece.finish_reason for piece in pieces} == dict(enumerate(made.finish_reasons))
    assert stream.tasks == tuple(TASKS)


def test_a_stream_that_is_not_read_to_its_end(session: Session) -> None:
    stream = session.stream(TEXTS, TASKS)
    first = next(stream)
    stream.close()
    assert list(stream) == []
    assert next(session.stream(TEXTS, TASKS)) == first


def test_bytes_that_are_no_text(byte_session: Session) -> None:
    tokenizer = Tokenizer.from_file(str(byte_session.bundle.path / "tokenizer.json"))
    for seed in range(20):
        stream = byte_session.stream(["a", "aaaa"], "task1", max_new_tokens=40, temperature=2.0, seed=seed)
        pieces = list(stream)
        for text, ids in _collected(pieces, 2):
            assert text == tokenizer.decode([i for i in ids if i != 2]).rstrip("\ufffd")


def test_stop_texts(session: Session) -> None:
    """A stop text that spans tokens ends its row, is no part of the text, and no tokens follow it."""
    plain = session.generate(TEXTS, TASKS, max_new_tokens=12)
    words = plain.texts[0].split()
    stop = f"{words[2]} {words[3]}"
    made = session.generate(TEXTS, TASKS, max_new_tokens=12, stop=[stop, "no such word"])
    assert made.texts[0] == plain.texts[0][: plain.texts[0].index(stop)]
    assert made.finish_reasons[0] == "stop_string"
    assert len(made.token_ids[0]) < 12
    for row in (1, 2):
        if stop not in plain.texts[row]:
            assert made.texts[row] == plain.texts[row]
    pieces = [p for p in session.stream(TEXTS, TASKS, max_new_tokens=12, stop=stop) if p.row == 0]
    assert "".join(p.text for p in pieces) == made.texts[0]
    assert [p.finish_reason for p in pieces] == [None] * (len(pieces) - 1) + ["stop_string"]
    held = session.generate(TEXTS[0], "task0", max_new_tokens=4, stop=words[3] + "x")
    assert held.texts[0] == session.generate(TEXTS[0], "task0", max_new_tokens=4).texts[0]


def test_drawing(session: Session) -> None:
    def draw(**settings: object) -> Generated:
        return session.generate(TEXTS, TASKS, max_new_tokens=20, **settings)  # type: ignore[arg-type]

    greedy = draw()
    assert draw(temperature=1.0, seed=7) == draw(temperature=1.0, seed=7)
    assert draw(temperature=1.0, seed=7) != draw(temperature=1.0, seed=8)
    assert draw(temperature=3.0) != draw(temperature=3.0)
    assert draw(temperature=1.0, seed=7) != greedy
    for same in ({"temperature": 1.0, "top_k": 1}, {"temperature": 1e-4}, {"temperature": 1.0, "top_p": 1e-9}):
        assert draw(**same, seed=7) == greedy
    assert draw(temperature=1.0, top_p=1e-9, top_k=50, seed=7) == greedy
    assert draw(temperature=1.0, top_k=10**9, seed=7) == draw(temperature=1.0, seed=7)


@pytest.mark.parametrize(("settings", "most"), [({"top_k": 3}, 3), ({"top_k": 3, "top_p": 0.999}, 3), ({}, 120)])
def test_what_is_drawn_among(session: Session, settings: dict[str, float], most: int) -> None:
    """By the logits of the first step."""
    logits = session.run({"input_ids": [[10, 11, 12]]}, "task0")["logits"][0, -1]
    likely = set(np.argsort(-logits)[:most].tolist())
    drawn = session.generate(
        [[10, 11, 12]] * 32,
        "task0",
        max_new_tokens=1,
        temperature=5.0,
        seed=1,
        **settings,  # type: ignore[arg-type]
    )
    tokens = {ids[0] for ids in drawn.token_ids}
    assert tokens <= likely
    assert len(tokens) > min(most, 10) - 1


def test_many_threads(session: Session) -> None:
    expected = [session.generate(text, task, max_new_tokens=8) for text, task in zip(TEXTS, TASKS, strict=True)]

    def ask(i: int) -> bool:
        return session.generate(TEXTS[i % 3], TASKS[i % 3], max_new_tokens=8) == expected[i % 3]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(24)))


def test_without_a_tokenizer(workshop: Workshop, tmp_path: Path) -> None:
    bundle = workshop.bundle("ept")
    files = {name: entry for name, entry in bundle.manifest.files.items() if "token" not in name}
    bare = Session(replace(bundle, manifest=replace(bundle.manifest, files=files)), threads=1)
    made = bare.generate([[10, 11, 12]], "task0", max_new_tokens=5)
    assert made.texts == ("",)
    assert made.token_ids == Session(bundle, threads=1).generate([[10, 11, 12]], "task0", max_new_tokens=5).token_ids


def test_default_length(session: Session) -> None:
    """As far as the context goes, where that is shorter than the default."""
    made = session.generate([[10] * 120, [10]], "base")
    assert {
        len(ids) for ids, reason in zip(made.token_ids, made.finish_reasons, strict=True) if reason == "length"
    } <= {8}
    assert len(made.token_ids[0]) <= 8


def test_info(workshop: Workshop) -> None:
    session = Session(workshop.bundle("ept static"), threads=1)
    info = session.info()
    assert info["generates"] and json.dumps(info)
    assert info["kernels"] == {"running": False, "reason": "the bundle has standard operators only"}


# run


def _right(rows: Sequence[Sequence[int]], *, left: bool = False) -> dict[str, np.ndarray]:
    longest = max(map(len, rows))
    ids, mask = np.zeros((2, len(rows), longest), np.int64)
    for i, row in enumerate(rows):
        start = longest - len(row) if left else 0
        ids[i, start : start + len(row)], mask[i, start : start + len(row)] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


ROWS = [[10, 11, 12], [7], [50, 51, 52, 53, 54]]


def _alone(session: Session, i: int, task: str) -> np.ndarray:
    logits = session.run({"input_ids": [ROWS[i]]}, task)["logits"]
    assert logits.shape == (1, len(ROWS[i]), 120)
    return logits[0]


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", ["ept", "ept dynamic", "tucka row", "tucka prompt"])
def test_run(workshop: Workshop, name: str, left: bool) -> None:
    """Logits stand where the tokens stand, whichever side a row is padded on, and are zero elsewhere."""
    session = Session(workshop.bundle(name), threads=1)
    given = _right(ROWS, left=left)
    before = {key: array.copy() for key, array in given.items()}
    outputs = session.run(given, TASKS if name.startswith("ept") else None)
    assert all(np.array_equal(given[key], before[key]) for key in given)
    logits = outputs["logits"]
    assert [row.shape for row in outputs.logits] == [(5, 120)] * 3
    assert outputs.labels == [None] * 3
    for i in range(3):
        shown = given["attention_mask"][i] == 1
        alone = session.run({"input_ids": [ROWS[i]]}, TASKS[i] if name.startswith("ept") else None)
        np.testing.assert_allclose(logits[i][shown], alone["logits"][0], atol=2e-4)
        assert (logits[i][~shown] == 0).all()


def test_run_against_the_reference(workshop: Workshop) -> None:
    session, reference = Session(workshop.bundle("ept"), threads=1), workshop.reference("ept")
    for i, task in enumerate([0, 3, 2]):
        ones = np.ones((1, len(ROWS[i])), np.int64)
        want = by_task(reference, {"input_ids": np.array([ROWS[i]]), "attention_mask": ones}, [task]).outputs["logits"]
        np.testing.assert_allclose(_alone(session, i, TASKS[i]), want[0], atol=2e-4)


def test_half_precision(workshop: Workshop) -> None:
    session, reference = Session(workshop.bundle("ept fp16"), threads=1), workshop.reference("ept")
    logits = session.run(_right(ROWS, left=True), TASKS)["logits"]
    made = session.generate(ROWS, TASKS, max_new_tokens=8)
    for i, task in enumerate([0, 3, 2]):
        ones = np.ones((1, len(ROWS[i])), np.int64)
        want = by_task(reference, {"input_ids": np.array([ROWS[i]]), "attention_mask": ones}, [task]).outputs["logits"]
        np.testing.assert_allclose(logits[i, -len(ROWS[i]) :], want[0], atol=0.05)
        assert session.generate([ROWS[i]], TASKS[i], max_new_tokens=8).token_ids[0] == made.token_ids[i]


def test_run_on_text(session: Session) -> None:
    arrays = session.run(_right(_ids(session)), TASKS)
    np.testing.assert_array_equal(session.run(TEXTS, TASKS)["logits"], arrays["logits"])


@pytest.mark.parametrize("left", [False, True])
def test_run_with_a_cache(session: Session, left: bool) -> None:
    """A cache that was returned goes back in, with the mask as the caller keeps it."""
    given = _right(ROWS, left=left)
    first = session.run(given, TASKS)
    cache = {name.replace("present", "past_key_values"): first[name] for name in first if name.startswith("present")}
    mask = np.concatenate([given["attention_mask"], np.ones((3, 1), np.int64)], axis=1)
    step = session.run({"input_ids": [[20], [21], [22]], "attention_mask": mask, **cache}, TASKS)["logits"]
    for i in range(3):
        whole = session.run({"input_ids": [[*ROWS[i], 20 + i]]}, TASKS[i])["logits"]
        np.testing.assert_allclose(step[i], whole[0, -1:], atol=2e-4)


def test_run_keeps_a_route(workshop: Workshop) -> None:
    session = Session(workshop.bundle("tucka prompt"), threads=1)
    free = session.run({"input_ids": [ROWS[2]]})
    used = {name: free[f"{name}_used"] for name in ("route_group", "route_weights")}
    kept = session.run({"input_ids": [ROWS[2]], **used})
    np.testing.assert_array_equal(kept["logits"], free["logits"])
    other = session.run({"input_ids": [ROWS[2]], **used, "route_group": 1 - used["route_group"]})
    assert np.abs(other["logits"] - free["logits"]).max() > 1e-2
