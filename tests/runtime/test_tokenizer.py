"""Text becomes the arrays that the model was trained on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eptx.bundle import Bundle, BundleWriter
from eptx.bundle import Text as TextSettings
from eptx.errors import BundleError, NotSupportedError, RequestError
from eptx.runtime import Session
from eptx.runtime.requests.tokenizer import Tokenizer
from tests.support.tiny_bundle import tiny_manifest, tiny_model, write_tiny


@pytest.fixture
def tokenizer(conditioned: Session) -> Tokenizer:
    return Tokenizer(conditioned.bundle)


def test_rows_are_padded_to_the_longest(tokenizer: Tokenizer) -> None:
    arrays = tokenizer(["good film", "the book is not bad"])
    np.testing.assert_array_equal(arrays["input_ids"], [[2, 5, 7, 3, 0, 0, 0], [2, 11, 8, 9, 10, 6, 3]])
    np.testing.assert_array_equal(arrays["attention_mask"], [[1, 1, 1, 1, 0, 0, 0], [1] * 7])
    np.testing.assert_array_equal(arrays["token_type_ids"], np.zeros((2, 7)))
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.int64)}


def test_pairs(tokenizer: Tokenizer) -> None:
    arrays = tokenizer([("good film", "bad"), ("a", "book")])
    np.testing.assert_array_equal(arrays["input_ids"], [[2, 5, 7, 3, 6, 3], [2, 4, 3, 8, 3, 0]])
    np.testing.assert_array_equal(arrays["token_type_ids"], [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0]])


def test_texts_and_pairs_together(tokenizer: Tokenizer) -> None:
    arrays = tokenizer(["good", ["a", "book"]])  # type: ignore[list-item]
    np.testing.assert_array_equal(arrays["attention_mask"], [[1, 1, 1, 0, 0], [1] * 5])


def test_one_text_is_a_batch_of_one(tokenizer: Tokenizer) -> None:
    np.testing.assert_array_equal(tokenizer("good film")["input_ids"], [[2, 5, 7, 3]])


def test_long_text_is_cut_to_what_the_model_reads(tokenizer: Tokenizer, conditioned: Session) -> None:
    assert tokenizer("good " * 100)["input_ids"].shape == (1, 16)
    pair = tokenizer([("good " * 100, "bad " * 100)])["input_ids"][0]
    assert (len(pair), list(pair).count(3), pair[-1]) == (16, 2, 3)
    conditioned.run("good " * 100, "mnli")


def test_text_and_arrays_give_the_same(conditioned: Session, tokenizer: Tokenizer) -> None:
    texts = ["good film", "a bad bad book"]
    by_text = conditioned.run(texts, ["sst2", "mnli"])
    by_array = conditioned.run(tokenizer(texts), ["sst2", "mnli"])
    np.testing.assert_array_equal(by_text["logits"], by_array["logits"])
    assert by_text.labels == by_array.labels


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "the batch of texts is empty"),
        ([3], "text 0 is neither a string nor a pair"),
        (["a", None], "text 1 is neither a string nor a pair"),
        ([("a", "b", "c")], "text 0 is neither a string nor a pair"),
        ([("a", 1)], "text 0 is neither a string nor a pair"),
        (["\ud800"], "cannot be tokenized"),
    ],
)
def test_what_is_not_text(conditioned: Session, texts: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said) as e:
        conditioned.run(texts, "mnli")
    assert "\n" not in str(e.value)


def _bundle(folder: Path, change: Any = None, **fields: Any) -> Bundle:
    """The tiny bundle with a changed tokenizer and other fields in its manifest."""
    source = json.loads((write_tiny(folder / "source", tokenizer=True).path / "tokenizer.json").read_text())
    with BundleWriter(folder / "bundle") as writer:
        writer.write("model.onnx", tiny_model().SerializeToString())
        text = change(source) if change else None
        writer.write("tokenizer.json", text if isinstance(text, str) else json.dumps(source))
        return writer.finish(tiny_manifest(**fields))


def test_rows_are_filled_as_the_manifest_says(tmp_path: Path) -> None:
    arrays = Tokenizer(_bundle(tmp_path, text=TextSettings(padding_side="left", pad=9)))(["a a", "a"])
    np.testing.assert_array_equal(arrays["input_ids"][1], [9, 2, 4, 3])
    np.testing.assert_array_equal(arrays["attention_mask"][1], [0, 1, 1, 1])


def test_texts_are_cut_as_the_manifest_says(tmp_path: Path) -> None:
    text = "good film a bad book"
    for settings, ids in (
        (TextSettings(max_length=5), [2, 5, 7, 4, 3]),
        (TextSettings(max_length=5, truncation_side="left"), [2, 4, 6, 8, 3]),
        (TextSettings(), [2, 5, 7, 4, 6, 8, 3]),
    ):
        assert Tokenizer(_bundle(tmp_path, text=settings))(text)["input_ids"].tolist() == [ids]


def test_texts_are_lowered_as_the_manifest_says(tmp_path: Path) -> None:
    assert Tokenizer(_bundle(tmp_path, text=TextSettings()))("GOOD")["input_ids"].tolist() == [[2, 1, 3]]
    assert Tokenizer(_bundle(tmp_path, text=TextSettings(lower_case=True)))("GOOD")["input_ids"].tolist() == [[2, 5, 3]]


def test_a_text_without_tokens(tmp_path: Path) -> None:
    tokenizer = Tokenizer(_bundle(tmp_path, lambda t: t.update(post_processor=None)))
    with pytest.raises(RequestError, match="text 1 has no tokens"):
        tokenizer(["a", ""])


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": "1.0"}', "\0", '{"model": {"type": "BPE"}}'])
def test_a_damaged_tokenizer(tmp_path: Path, text: str) -> None:
    with pytest.raises(BundleError, match=r"tokenizer\.json: not a tokenizer") as e:
        Tokenizer(_bundle(tmp_path, lambda _: text))
    assert "\n" not in str(e.value)


def test_without_a_tokenizer(tmp_path: Path) -> None:
    session = Session(write_tiny(tmp_path / "bundle"))
    with pytest.raises(RequestError, match=r"no tokenizer.json; give arrays such as input_ids"):
        session.run("good film", "mnli")


def test_without_the_package(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    session = Session(bundles / "static")
    with pytest.raises(NotSupportedError, match="pip install tokenizers"):
        session.run("good film")
    session.run({"input_ids": [[2, 3]]})
