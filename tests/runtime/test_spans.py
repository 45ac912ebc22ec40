"""Entities and answers are what transformers' own pipelines say of PEFT's own model, for every task of a bundle.

transformers 5 has no ``question-answering`` pipeline; what chooses its answer is in that of documents.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers.pipelines.document_question_answering import select_starts_ends

from eptx import Session
from eptx.calibration import export_bundle
from eptx.errors import RequestError
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.models.infer import InferService
from tests.malformed.scene import Cli

LENGTH = 24
#: Task -> its labels.
NER = {
    "ner": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
    "pos": ["NOUN", "VERB", "X-O"],
    "plain": ["I-A", "B-A", "A", "I-B-C"],
}
TEXTS = [
    "Ada Lovelace met Émile in London, near the sea.",
    "İstanbul 東京 naïve ☃ ﬁne 👩‍👩‍👧 done",
    "one",
    "a very long text that is cut, " * 4,
    "two  spaces\tand\na line",
]
PAIRS = [
    ("Who met Émile?", "Ada Lovelace met Émile in London."),
    ("Où?", "İstanbul 東京 naïve ☃ ﬁne 👩‍👩‍👧 done"),
    ("What is cut?", "a long context that is cut, " * 4),
    ("a very long question that leaves hardly any room for the text", "London is near the sea and far from here"),
]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz,.?'"


@dataclass(frozen=True)
class Made:
    """A bundle, and what it must say of texts, or of pairs, by task."""

    session: Session
    says: dict[str, Callable[[Any], Any]]
    tokenizer: Any


def write_vocabulary(folder: Path) -> None:
    """A ``vocab.txt`` and nothing else, of which transformers makes a fast tokenizer."""
    words = ["London", "Ada", "##lace", "met", "in", "near", "the", "sea", "long", "text"]
    (folder / "vocab.txt").write_text("\n".join([*WORDS, *words, *LETTERS, *(f"##{letter}" for letter in LETTERS)]))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": LENGTH}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_bytes(folder: Path) -> None:
    """Byte-level BPE, as RoBERTa has it."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters, "Ġt", "he", "Ġthe", "on"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\nĠ t\nh e\nĠt he\no n\n")
    settings = {"tokenizer_class": "RobertaTokenizer", "model_max_length": LENGTH}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_unigram(folder: Path) -> None:
    """Unigram, as XLM-R has it; rows are padded on the left."""
    pieces = [*WORDS, "▁", *LETTERS, "▁London", "▁met", "▁the", "▁in", "A", "da"]
    rules = Tokenizer(models.Unigram([(piece, -float(len(LETTERS) / len(piece))) for piece in pieces], unk_id=1))
    rules.pre_tokenizer, rules.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    rules.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", [("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=rules, padding_side="left", model_max_length=LENGTH, **names
    ).save_pretrained(folder)


def make(
    folder: Path, head: str, tasks: dict[str, list[str]], mode: Any, write: Callable[[Path], None], **peft: Any
) -> tuple[Session, dict[str, Any], Any]:
    """A bundle of adapters on a random BERT, and PEFT's models."""
    base = folder / "base"
    base.mkdir(parents=True)
    write(base)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    torch.manual_seed(0)
    settings = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with quiet():
        transformers.BertModel(
            transformers.BertConfig(
                **settings, intermediate_size=24, max_position_embeddings=LENGTH, initializer_range=0.5
            )
        ).save_pretrained(base)
        trained = {}
        for seed, (task, labels) in enumerate(tasks.items()):
            torch.manual_seed(seed)
            named = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
            loaded = getattr(transformers, f"BertFor{head}").from_pretrained(base, **named if labels else {})
            config = LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False, **peft)
            trained[task] = get_peft_model(loaded, config).eval()
            for name, parameter in trained[task].named_parameters():
                if parameter.requires_grad and "lora_" not in name:
                    parameter.data.normal_(0, 1)
            trained[task].save_pretrained(folder / task)
            trained[task].get_base_model().config.save_pretrained(folder / task)  # as a Trainer leaves it there
        adapters = [folder / task for task in tasks]
        export_bundle(base, adapters, folder / "bundle", ExportOptions(mode=mode, tasks=list(tasks)))
    return Session(folder / "bundle"), trained, tokenizer


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capfd)


@pytest.fixture(
    scope="module", params=[("conditioned", write_vocabulary), ("static", write_unigram)], ids=lambda p: p[0]
)
def ner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    mode, write = request.param
    tasks = NER if mode == "conditioned" else {"ner": NER["ner"]}
    folder = tmp_path_factory.mktemp("ner")
    session, trained, tokenizer = make(folder, "TokenClassification", tasks, mode, write, task_type="TOKEN_CLS")
    said = {
        task: transformers.pipeline(
            "token-classification", model.get_base_model(), tokenizer=tokenizer, aggregation_strategy="simple"
        )
        for task, model in trained.items()
    }
    return Made(session, said, tokenizer)


@pytest.fixture(scope="module", params=[("conditioned", write_bytes), ("static", write_vocabulary)], ids=lambda p: p[0])
def qa(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    mode, write = request.param
    tasks: dict[str, list[str]] = {"one": [], "two": []} if mode == "conditioned" else {"one": []}
    folder = tmp_path_factory.mktemp("qa")
    session, trained, tokenizer = make(
        folder, "QuestionAnswering", tasks, mode, write, task_type="QUESTION_ANS", modules_to_save=["qa_outputs"]
    )
    said = {task: partial(answer_of, model, tokenizer) for task, model in trained.items()}
    return Made(session, said, tokenizer)


def answer_of(model: Any, tokenizer: Any, pair: tuple[str, str]) -> dict[str, Any] | None:
    """What the ``question-answering`` pipeline of transformers 4 does, with transformers' own choice of the tokens."""
    encoded = tokenizer(*pair, truncation=True, return_tensors="pt")
    with torch.no_grad():
        found = model(**encoded)
    start, end = (logits.numpy() for logits in (found.start_logits, found.end_logits))
    hidden = np.array([[part != 1 for part in encoded.sequence_ids(0)]])
    if hidden.all():
        return None
    hidden[encoded["input_ids"].numpy() == tokenizer.cls_token_id] = False
    (first,), (last,), (score,), _ = select_starts_ends(start, end, hidden, encoded["attention_mask"].numpy())
    left = encoded.word_to_chars(0, encoded.token_to_word(0, int(first)), sequence_index=1).start
    right = encoded.word_to_chars(0, encoded.token_to_word(0, int(last)), sequence_index=1).end
    place = (int(first), int(last) + 1)
    return {"text": pair[1][left:right], "start": left, "end": right, "score": score, "tokens": place}


def same_entities(found: Any, wanted: list[dict[str, Any]]) -> None:
    assert [(e.label, e.word, e.start, e.end) for e in found] == [
        (w["entity_group"], w["word"], w["start"], w["end"]) for w in wanted
    ]
    np.testing.assert_allclose([e.score for e in found], [w["score"] for w in wanted], atol=2e-6)


def test_entities(ner: Made) -> None:
    tasks = [*ner.says]
    rows = [(text, tasks[(i + j) % len(tasks)]) for i, text in enumerate(TEXTS) for j in range(len(tasks))]
    wanted = [ner.says[task](text) for text, task in rows]
    assert sum(len(row) for row in wanted) > 20
    if ner.tokenizer.padding_side == "right":
        found = ner.session.run([text for text, _ in rows], [task for _, task in rows]).entities
    else:  # BERT counts the padding at the left as positions, so a row by itself is another one
        found = [ner.session.run(text, task).entities[0] for text, task in rows]
    for own, there in zip(found, wanted, strict=True):
        same_entities(own, there)


def test_padding_moves_no_characters(ner: Made) -> None:
    outputs = ner.session.run([TEXTS[2], TEXTS[0]], next(iter(ner.says)))
    for text, found in zip((TEXTS[2], TEXTS[0]), outputs.entities, strict=True):
        encoded = ner.tokenizer(text, truncation=True)
        moved = outputs["logits"].shape[1] - len(encoded["input_ids"]) if ner.tokenizer.padding_side == "left" else 0
        assert found
        for e in found:
            assert encoded.token_to_chars(e.tokens[0] - moved).start == e.start
            assert encoded.token_to_chars(e.tokens[1] - 1 - moved).end == e.end


def test_entities_of_arrays_have_tokens_only(ner: Made) -> None:
    task = next(iter(ner.says))
    by_text = ner.session.run(TEXTS[:1], task).entities[0]
    arrays = ner.session.tokenizer(TEXTS[:2])
    found = ner.session.run(arrays, task)
    assert {(e.word, e.start, e.end) for e in found.entities[0] or ()} == {(None, None, None)}
    labels = found.labels[0]
    for e in found.entities[0] or ():
        assert {labels[i].split("-")[-1] for i in range(*e.tokens)} == {e.label}
    inside = {i for e in found.entities[0] or () for i in range(*e.tokens)}
    assert inside == {i for i, shown in enumerate(arrays["attention_mask"][0]) if shown and labels[i] != "O"}
    assert by_text is not None


def test_entities_of_pairs_stay_in_their_text(ner: Made) -> None:
    task = next(iter(ner.says))
    (found,) = ner.session.run(PAIRS[:1], task).entities
    encoded = ner.tokenizer(*PAIRS[0], truncation=True)
    assert {e.part for e in found or ()} == {0, 1}
    for e in found or ():
        parts = {encoded.sequence_ids(0)[i] for i in range(*e.tokens)}
        assert parts == {e.part}
        assert encoded.token_to_chars(e.tokens[0]).start == e.start
        assert encoded.token_to_chars(e.tokens[1] - 1).end == e.end


def test_answers(qa: Made) -> None:
    rows = [(pair, task) for pair in PAIRS for task in qa.says]
    found = qa.session.run([pair for pair, _ in rows], [task for _, task in rows])
    for own, (pair, task) in zip(found.answers, rows, strict=True):
        wanted = qa.says[task](pair)
        assert (own is None) == (wanted is None)
        if own is not None and wanted is not None:
            assert own.score == pytest.approx(wanted.pop("score"), abs=2e-6)
            assert {"text": own.text, "start": own.start, "end": own.end, "tokens": own.tokens} == wanted


def test_an_answer_needs_a_pair(qa: Made) -> None:
    outputs = qa.session.run([PAIRS[0], "Who met Émile?"], "one")
    with pytest.raises(RequestError, match="text 1 is no pair; an answer needs a question and the text that it is in"):
        _ = outputs.answers
    with pytest.raises(RequestError, match="labels no tokens"):
        _ = outputs.entities


def test_answers_of_arrays_have_tokens_only(qa: Made) -> None:
    arrays = qa.session.tokenizer(PAIRS[:2])
    found = qa.session.run(arrays, "one")
    wanted = qa.session.run(PAIRS[:2], "one").answers
    for row, own in enumerate(found.answers):
        assert own is not None and (own.text, own.start, own.end) == (None, None, None)
        there = wanted[row]
        assert there is not None and own.tokens[0] > 0 and arrays["attention_mask"][row][own.tokens[1] - 1]


def test_a_classifier_of_texts_has_neither(conditioned: Session) -> None:
    outputs = conditioned.run("good film", "sst2")
    with pytest.raises(RequestError, match="labels no tokens of a text"):
        _ = outputs.entities
    with pytest.raises(RequestError, match="answers no questions"):
        _ = outputs.answers


def test_the_command(ner: Made, qa: Made, cli: Cli, tmp_path: Path) -> None:
    wanted = list(ner.says["ner"](TEXTS[0]))
    result = cli("run", ner.session.bundle.path, "--task", "ner", TEXTS[0])
    said = ", ".join(f"{e['entity_group']}: {e['word']}" for e in wanted)
    scores = " ".join(f"{e['score']:.4f}" for e in wanted)
    assert (result.code, result.out) == (0, f"ner\t{said}\t{scores}\t{TEXTS[0]}\n")
    (row,) = json.loads(cli("run", ner.session.bundle.path, "--task", "ner", "--json", TEXTS[0]).out)
    assert set(row) == {"text", "task", "entities"}
    assert [(e["label"], e["word"], e["start"], e["end"]) for e in row["entities"]] == [
        (e["entity_group"], e["word"], e["start"], e["end"]) for e in wanted
    ]
    lines = [json.dumps({"text": one, "text_pair": two, "task": "one"}) for one, two in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    path, asked = qa.session.bundle.path, ("--input", tmp_path / "pairs.jsonl", "--batch-size", "1")
    rows = json.loads(cli("run", path, *asked, "--json").out)
    told = cli("run", path, *asked).out.splitlines()
    for row, line, pair in zip(rows, told, PAIRS, strict=True):
        there = qa.says["one"](pair) or {"text": "", "start": None, "end": None}
        assert (row["answer"], row["start"], row["end"]) == (there["text"], there["start"], there["end"])
        score = [f"{row['score']:.4f}"] if row["score"] is not None else []
        assert line.split("\t") == ["one", row["answer"], *score, " | ".join(pair)]
    refused = cli("run", path, "--task", "one", "Who met Émile?")
    assert (refused.code, refused.out) == (3, "")
    assert refused.err.startswith("error: text 0 is no pair; an answer needs a question")


def ask(session: Session, *requests: dict[str, Any]) -> list[Any]:
    """The server's answers to requests that come together."""

    async def all_of_them() -> list[Any]:
        service = InferService("m", session, Limits(max_delay=0.2), Metrics())
        bodies = [json.dumps(request).encode() for request in requests]
        end = time.monotonic() + 60
        answers = [service.infer(body, None, end) for body in bodies]
        try:
            return await asyncio.gather(*answers, return_exceptions=True)
        finally:
            service.close()

    found = asyncio.run(all_of_them())
    return [{o["name"]: o["data"] for o in json.loads(a[0])["outputs"]} if isinstance(a, tuple) else a for a in found]


def texts(name: str, *data: str) -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [len(data)], "data": list(data)}


def test_the_server(ner: Made, qa: Made) -> None:
    """Requests of different lengths share a run."""
    requests = [{"inputs": [texts("text", text)], "parameters": {"task": "ner"}} for text in TEXTS[:3]]
    for answer, text in zip(ask(ner.session, *requests), TEXTS, strict=False):
        assert list(answer) == ["entities", "task", "logits"]
        wanted = ner.says["ner"](text)
        assert [(e["label"], e["word"], e["start"], e["end"]) for e in json.loads(answer["entities"][0])] == [
            (e["entity_group"], e["word"], e["start"], e["end"]) for e in wanted
        ]
    ids = ner.session.tokenizer(TEXTS[0])["input_ids"]
    given = {"name": "input_ids", "datatype": "INT64", "shape": list(ids.shape), "data": ids.ravel().tolist()}
    (answer,) = ask(ner.session, {"inputs": [given], "parameters": {"task": "ner"}, "outputs": [{"name": "entities"}]})
    assert {e["word"] for e in json.loads(answer["entities"][0])} == {None}
    requests = [
        {"inputs": [texts("text", one), texts("text_pair", two)], "parameters": {"task": "one"}} for one, two in PAIRS
    ]
    *answers, refused = ask(qa.session, *requests, {"inputs": [texts("text", "alone")], "parameters": {"task": "one"}})
    for answer, pair in zip(answers, PAIRS, strict=True):
        assert list(answer) == ["answer", "task", "start_logits", "end_logits"]
        there = qa.says["one"](pair)
        found = json.loads(answer["answer"][0]) if answer["answer"][0] else None
        assert (found is None) == (there is None)
        if found is not None and there is not None:
            assert {key: found[key] for key in ("text", "start", "end")} == {
                key: there[key] for key in ("text", "start", "end")
            }
    assert isinstance(refused, RequestError)
