"""What a bundle is validated on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import BertConfig, BertModel

from eptx.bundle import Bundle, Manifest, Sources, Task, TensorSpec
from eptx.errors import DataError, NotSupportedError
from eptx.exporter.validation import ValidateOptions
from eptx.exporter.validation.base.lookups import Lookups
from eptx.exporter.validation.inputs.random_batches import generated, redraw
from eptx.exporter.validation.inputs.user_data import from_data, read_texts
from eptx.exporter.validation.inputs.vocabulary import Vocabulary
from eptx.manifest.names import AUTO_TASK
from eptx.runtime.validation.batch import Batch, task_ids
from tests.support.tiny_bundle import write_tiny

TEXT = ("input_ids", "attention_mask", "token_type_ids")
CONFIG = {"vocab_size": 50, "type_vocab_size": 2, "pad_token_id": 1, "cls_token_id": 7, "sep_token_id": 8}
VOCABULARY = Vocabulary.of(CONFIG, Lookups(positions=16))


def manifest(*inputs: TensorSpec, tasks: int = 2, longest: int | None = 16) -> Manifest:
    names = [Task(f"t{i}", i) for i in range(tasks)]
    given = inputs or tuple(TensorSpec(name, "int64", ("batch", "length")) for name in TEXT)
    ids = (TensorSpec("task_id", "int64", ("batch",)),) if tasks > 1 else ()
    return Manifest(
        "eptx", "conditioned" if tasks > 1 else "static", "ept", "bert", "fp32", "cpu", tuple(names), given + ids,
        (TensorSpec("logits", "float32", ("batch", 2)),), Sources(None, None, ()), {}, {}, max_length=longest,
    )  # fmt: skip


def test_every_task_alone_and_all_of_them_mixed() -> None:
    batches = generated(manifest(), VOCABULARY, ["t0", "t1", AUTO_TASK])
    assert [batch.tasks for batch in batches if batch.rows == 1] == [("t0",), ("t1",), (AUTO_TASK,), ("t0",)]
    mixed = [batch for batch in batches if batch.rows > 1 and batch.length > 2]
    assert all({"t0", "t1", AUTO_TASK} == set(batch.tasks) for batch in mixed)
    assert [(batch.rows, batch.length) for batch in batches if batch.length <= 2] == [(2, 1), (17, 2)]
    assert task_ids(mixed[0], {"t0": 4, "t1": 5}).tolist() == [4, 5, -1, 4, 5, -1]
    assert [batch.kept is not None and bool(batch.kept.all()) for batch in mixed] == [False, True]


def test_tokens_fit_the_model() -> None:
    for batch in generated(manifest(), VOCABULARY, ["t0", "t1"]):
        ids, mask, types = (batch.arrays[name] for name in TEXT)
        assert ids.dtype == mask.dtype == types.dtype == np.int64
        assert ids.shape[1] <= 16
        assert ids.min() >= 0
        assert ids.max() < 50
        assert (ids[:, 0] == 7).all() or ids.shape[1] == 1
        assert (ids[np.arange(len(ids)), mask.sum(axis=1) - 1] == 8).all()
        # RoBERTa numbers positions by where the padding id is
        assert ((ids == 1) == (mask == 0)).all()
        assert types.max() <= 1
        assert not types[mask == 0].any()


def test_a_single_task_gets_several_rows() -> None:
    batches = generated(manifest(tasks=1), VOCABULARY, ["t0"])
    assert sorted(batch.rows for batch in batches) == [1, 1, 2, 4, 6, 17]
    assert sum(batch.measures_effect for batch in batches) == 1


def test_the_same_batches_every_time_and_others_when_drawn_again() -> None:
    first, second = (generated(manifest(), VOCABULARY, ["t0", "t1"]) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert all(np.array_equal(a.arrays[name], b.arrays[name]) for name in TEXT)
    again = redraw(first[2], manifest(), VOCABULARY)
    assert again.tasks == first[2].tasks
    assert again.arrays["input_ids"].shape == first[2].arrays["input_ids"].shape
    assert not np.array_equal(again.arrays["input_ids"], first[2].arrays["input_ids"])


def test_images_have_the_size_of_the_graph() -> None:
    pixels = TensorSpec("pixel_values", "float32", ("batch", 3, 8, 8))
    batch = generated(manifest(pixels), VOCABULARY, ["t0", "t1"])[0]
    assert batch.arrays["pixel_values"].shape == (1, 3, 8, 8)
    assert batch.arrays["pixel_values"].dtype == np.float32
    assert redraw(batch, manifest(pixels), VOCABULARY).arrays["pixel_values"].shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    "spec",
    [TensorSpec("pixel_values", "float32", ("batch", 3, "height", 8)), TensorSpec("bbox", "int64", ("batch", 4))],
    ids=["free sizes", "unknown"],
)
def test_inputs_that_cannot_be_made_up(spec: TensorSpec) -> None:
    with pytest.raises(NotSupportedError, match=spec.name):
        generated(manifest(spec), VOCABULARY, ["t0", "t1"])


def _data(tmp_path: Path, *lines: str, rows: int = 2, names: tuple[str, ...] = ("sst2", "mnli")) -> list[Batch]:
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(lines))
    bundle = write_tiny(tmp_path / "bundle", tokenizer=True)
    texts = read_texts(ValidateOptions(data=file, rows=rows), list(names))
    return from_data(bundle, texts, _base(tmp_path / "base", bundle), 512)


def _base(folder: Path, bundle: Bundle) -> Path:
    """A BERT of the tiny bundle's words, with its tokenizer."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=12, max_position_embeddings=16, **sizes)).save_pretrained(folder)
    shutil.copy(bundle.path / "tokenizer.json", folder)
    return folder


def test_data_takes_the_first_rows_of_every_task(tmp_path: Path) -> None:
    lines = ['{"text": "a good film", "task": "sst2", "label": 1}'] * 3
    lines += ['{"text": "a book", "text_pair": "not good", "task": "mnli", "label": "neutral"}', '{"text": "bad"}']
    batches = _data(tmp_path, *lines)
    assert sorted(zip(batches[0].tasks, batches[0].labels, strict=True), key=str) == [
        ("mnli", "neutral"),
        ("sst2", 1),
        ("sst2", 1),
    ]
    assert batches[0].seed is None
    assert batches[0].arrays["input_ids"].shape == batches[0].arrays["attention_mask"].shape


def test_a_bundle_of_one_task_leaves_the_others_out(tmp_path: Path) -> None:
    lines = ['{"text": "a", "task": "sst2"}', '{"text": "a", "task": "cola"}']
    assert [batch.tasks for batch in _data(tmp_path, *lines, names=("cola",))] == [("cola",)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['{"text": "a", "task": "nothing"}'], "'nothing' is not one of sst2, mnli"),
        ([""], "has no rows of sst2, mnli"),
        (['{"label": 1}'], "line 1: must be an object with a string 'text'"),
    ],
    ids=["unknown task", "empty", "no text"],
)
def test_data_that_does_not_fit(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        _data(tmp_path, *lines)
