"""Answers of a `Probe` against those of a `Session`, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from eptx import Session
from eptx.calibration import export_bundle
from eptx.errors import DataError
from eptx.exporter import ExportOptions
from eptx.runtime.measure import Probe, Row, choose_metrics, drops, read_data
from eptx.runtime.measure import Source as Rows
from tests.malformed.scene import make_scene
from tests.support.decoders import write_decoder_bundle
from tests.support.tiny_bundle import VOCABULARY, write_tiny

WORDS = VOCABULARY[4:]
KINDS = {"sst2": "labels", "mnli": "labels", "stsb": "value", "base": "labels"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(write_tiny(tmp_path_factory.mktemp("encoder") / "b", tokenizer=True), threads=1)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(write_decoder_bundle(tmp_path_factory.mktemp("decoder") / "b"), threads=1)


def test_an_encoder_answers_as_its_session_does(encoder: Session) -> None:
    """Single texts, pairs and token ids of many lengths and three tasks, in batches that mix them."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[Row]] = {"stsb": [], "sst2": [], "mnli": []}
    for number in range(90):
        task = ("stsb", "sst2", "mnli")[rng.integers(3)]
        a, b = (" ".join(rng.choice(WORDS, rng.integers(1, 25))) for _ in range(2))
        if number % 3 == 0:
            ids = tuple(rng.integers(0, len(VOCABULARY), rng.integers(1, 17)).tolist())
            rows[task].append(Row(task, input_ids=ids))
        else:
            rows[task].append(Row(task, a, b if number % 3 == 1 else None))
    probe = Probe(encoder, rows)
    assert any(len({item.row.task for item in batch}) == 3 for batch in probe.batches())
    answers = probe.run(encoder)
    assert answers.kinds == {task: KINDS[task] for task in rows}
    for task, own in rows.items():
        for row, answer in zip(own, answers.of(task), strict=True):
            inputs = {"input_ids": [row.input_ids]} if row.input_ids else [_text(row)]
            alone = encoder.run(inputs, task)["logits"][0]  # type: ignore[arg-type]
            wanted = alone[: {"stsb": 1, "sst2": 2, "mnli": 3}[task]]
            assert answer == pytest.approx(wanted, abs=1e-6)


def _text(row: Row) -> str | tuple[str, str]:
    assert row.text is not None
    return row.text if row.text_pair is None else (row.text, row.text_pair)


def test_labels_of_an_encoder(encoder: Session) -> None:
    """By number and by name; what the model itself says is right is."""
    texts = ["good film", "bad book", "the film is not good", "a book"]
    own = {task: encoder.run(texts, task).labels for task in ("sst2", "mnli")}
    numbers = [("entailment", "neutral", "contradiction").index(label) for label in own["mnli"]]
    given = {"sst2": own["sst2"], "mnli": numbers, "stsb": [*encoder.run(texts, "stsb")["logits"][:, 0]]}
    rows = read_data(
        [Rows([{"text": t, "label": label} for t, label in zip(texts, given[k], strict=True)], k) for k in given],
        [*given],
    )
    probe = Probe(encoder, rows)
    answers = probe.run(encoder)
    for drop in drops(answers, answers, choose_metrics(probe.kinds, {"sst2": "matthews"})):
        assert drop.labelled and drop.rows == 4
        assert drop.reference == pytest.approx(1) and drop.points == 0


def test_without_heads_an_answer_is_a_vector(tmp_path: Path) -> None:
    """The mean of what the graph gives first, without the padding's share; labels say nothing about it."""
    scene = make_scene(tmp_path)
    options = ExportOptions(mode="conditioned", base_onnx=scene.onnx)
    session = Session(export_bundle(scene.base, [scene.lora, scene.lora2], scene.out / "b", options), threads=1)
    rows = {task: [Row(task, input_ids=(5, 6, 7)[:n], label=n) for n in (1, 3, 2)] for task in session.tasks[:2]}
    answers = Probe(session, rows).run(session)
    for task, own in rows.items():
        assert answers.kinds[task] == "vector" and answers.labels(task) is None
        for row, answer in zip(own, answers.of(task), strict=True):
            states = session.run({"input_ids": [row.input_ids]}, task)["last_hidden_state"][0]
            assert answer == pytest.approx(states.mean(0), abs=1e-6)
    (a, b) = drops(answers, answers, choose_metrics(answers.kinds, {}))
    assert a.metric == b.metric == "cosine" and a.reference == pytest.approx(1) and not a.labelled


LENGTHS = (3, 1, 9, 5, 12, 2, 7, 4, 20, 6)


def prompts(end: int) -> list[list[int]]:
    rng = np.random.default_rng(5)
    return [rng.integers(4, end, length).tolist() for length in LENGTHS]


def greedy(session: Session, asked: Sequence[Sequence[int]], tasks: Sequence[str]) -> list[tuple[int, ...]]:
    """Answers of one to six tokens."""
    rows = zip(asked, tasks, range(len(asked)), strict=True)
    return [tuple(session.generate([p], t, max_new_tokens=1 + i % 6).token_ids[0]) for p, t, i in rows]


def exact(session: Session, asked: Sequence[Sequence[int]], tasks: Sequence[str], labels: Sequence[object]) -> float:
    """The share of answers that are the labels, whatever the tasks."""
    rows: dict[str, list[Row]] = {}
    for ids, task, label in zip(asked, tasks, labels, strict=True):
        rows.setdefault(task, []).append(Row(task, input_ids=tuple(ids), label=label))  # type: ignore[arg-type]
    answers = Probe(session, rows).run(session)
    found = drops(answers, answers, choose_metrics(answers.kinds, {}), intervals=False)
    assert all(drop.labelled and drop.metric == "exact_match" for drop in found)
    return sum(drop.reference * drop.rows for drop in found) / len(asked)


def test_a_decoder_that_is_told_its_answer_gives_what_it_generates(decoder: Session) -> None:
    asked, tasks = prompts(120), [f"task{i % 3}" for i in range(10)]
    right = greedy(decoder, asked, tasks)
    assert len(set(right)) == 10
    assert exact(decoder, asked, tasks, right) == 1
    # w0 to w3 are special tokens, which the tokenizer also finds at the beginning of w28
    plain = [all(str(token)[0] > "3" for token in answer) for answer in right]
    texts = [" ".join(f"w{i}" for i in answer) if p else answer for answer, p in zip(right, plain, strict=True)]
    assert sum(plain) >= 2 and exact(decoder, asked, tasks, texts) == 1
    for place in (0, -1):
        changed = [list(answer) for answer in right]
        for answer in changed[:7]:
            answer[place] = 4 + (answer[place] - 3) % 116
        assert exact(decoder, asked, tasks, [tuple(answer) for answer in changed]) == pytest.approx(0.3)


def test_a_decoder_without_labels(decoder: Session) -> None:
    """The last tokens of a text are what it is asked; how likely they are is what moves first."""
    rows = {"task0": [Row("task0", input_ids=tuple(range(4, 34))), Row("task0", text="w5 w6 w7")]}
    answers = Probe(decoder, rows).run(decoder)
    assert answers.labels("task0") is None
    for row, chosen, likely in zip(rows["task0"], answers.of("task0"), answers.confidence("task0"), strict=True):
        ids = list(row.input_ids or (5, 6, 7))
        logits = np.float64(decoder.run({"input_ids": [ids]}, "task0")["logits"][0])
        chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        count = min(16, len(ids) - 1)
        assert chosen.tolist() == logits[-count - 1 : -1].argmax(-1).tolist()
        expected = [chances[place, ids[place + 1]] for place in range(len(ids) - count - 1, len(ids) - 1)]
        assert likely == pytest.approx(expected, abs=1e-6)


REFUSED: dict[str, tuple[Row, str]] = {
    "a label too large": (Row("sst2", "a", label=2), "a label of sst2 is 2, out of range; they are 0 to 1"),
    "a negative label": (Row("mnli", "a", label=-1), "a label of mnli is -1, out of range; they are 0 to 2"),
    "a fraction": (Row("sst2", "a", label=0.5), "a label of sst2 is 0.5, out of range; they are 0 to 1"),
    "no number": (Row("stsb", "a", label=float("nan")), "a label of stsb is nan, which is not one of the task's"),
    "endless": (Row("stsb", "a", label=float("inf")), "a label of stsb is inf, which is not one of the task's"),
    "a name of nothing": (Row("sst2", "a", label="good"), "is 'good', which is not one of the task's; it has negative"),
    "a name of a value": (Row("stsb", "a", label="5"), "a label of stsb is '5', which is not one of the task's"),
    "true": (Row("sst2", "a", label=True), "a label of sst2 is True, which is not one of the task's"),
    "tokens": (Row("sst2", "a", label=(1,)), "a label of sst2 is (1,), which is not one of the task's"),
    "a token id too large": (Row("sst2", input_ids=(1, 12)), "holds token id 12; the model has token ids 0 to 11"),
    "a token id past 64 bits": (Row("sst2", input_ids=(2**70,)), "the model has token ids 0 to 11"),
    "too many token ids": (Row("sst2", input_ids=(1,) * 17), "is 17 tokens; the model reads at most 16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(encoder: Session, name: str) -> None:
    row, said = REFUSED[name]
    with pytest.raises(DataError) as e:
        Probe(encoder, {row.task: [row]})
    assert str(e.value).startswith("a row: ") and said in str(e.value) and "\n" not in str(e.value)


GENERATOR: dict[str, tuple[Row, str]] = {
    "a number": (Row("task0", "w5", label=1), "is 1; it must be the text to generate or its token ids"),
    "no text": (Row("task0", "w5", label=""), "text 0 has no tokens"),
    "no prompt": (Row("task0", "", label="w5"), "text 0 has no tokens"),
    "a pair": (Row("task0", "w5", "w6"), "has a text_pair; a language model reads one text"),
    "a token of no word": (Row("task0", "w5", label=(120,)), "holds token id 120; the model has token ids 0 to 119"),
    "too long an answer": (
        Row("task0", input_ids=(5,) * 250, label=(5,) * 7),
        "is 257 tokens; the model reads at most 256",
    ),
}


@pytest.mark.parametrize("name", GENERATOR)
def test_refused_by_generators(decoder: Session, name: str) -> None:
    row, said = GENERATOR[name]
    with pytest.raises(DataError) as e:
        Probe(decoder, {"task0": [row]})
    assert str(e.value).startswith("a row: ") and said in str(e.value) and "\n" not in str(e.value)


def test_texts_need_a_tokenizer(tmp_path: Path) -> None:
    session = Session(write_tiny(tmp_path / "b"), threads=1)
    with pytest.raises(DataError, match=r"a row: this bundle has no tokenizer\.json"):
        Probe(session, {"sst2": [Row("sst2", "a")]})
