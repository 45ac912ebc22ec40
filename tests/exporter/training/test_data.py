"""`RowEncoder`: what texts and names of labels become, and what is refused."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, DataCollatorWithPadding

from eptx.errors import DataError, UsageError
from eptx.peft import EptConfig, RowEncoder
from tests.support.minilm import minilm

CONFIG = EptConfig(
    tasks=["mood", "stars", "topic"],
    task_labels={"mood": ["bad", "good"], "stars": ["stars"], "topic": ["1", "0", "tax"]},
    task_head_pooling="mean",
)


@pytest.fixture(scope="module")
def encode() -> RowEncoder:
    return RowEncoder(AutoTokenizer.from_pretrained(minilm()), CONFIG, max_length=8)


def test_rows_of_a_csv_file(encode: RowEncoder) -> None:
    """Every value of one is a string; an empty text_pair is none."""
    text = "task,text,text_pair,label\nmood,fine,,good\nstars,so so,really,2.5\ntopic,pay,,0\n"
    given = [encode(row) for row in csv.DictReader(io.StringIO(text))]
    assert [row["task"] for row in given] == [0, 1, 2]
    assert [row["labels"] for row in given] == [1.0, 2.5, 1.0]  # the label named "0" is the second
    assert given[1]["input_ids"] == encode.tokenizer("so so", "really")["input_ids"]
    assert given[0]["input_ids"] == encode.tokenizer("fine")["input_ids"]
    batch = DataCollatorWithPadding(encode.tokenizer)(given)
    assert batch["task"].tolist() == [0, 1, 2] and batch["labels"].dtype == torch.float32


def test_numbers_are_places_and_long_texts_are_cut(encode: RowEncoder) -> None:
    row = encode({"task": "mood", "text": "very " * 30, "label": 0})
    assert row["labels"] == 0.0 and len(row["input_ids"]) == 8
    assert "labels" not in encode({"task": "mood", "text": "what?"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x", "label": "good"}, "task None: it must be one of mood, stars, topic"),
        ({"task": "moods", "text": "x", "label": "good"}, "task 'moods'"),
        ({"task": 0, "text": "x", "label": "good"}, "task 0"),
        ({"task": "mood", "label": "good"}, "text None"),
        ({"task": "mood", "text": "x", "label": "Good"}, "label 'Good' of task 'mood' must be one of bad, good"),
        ({"task": "mood", "text": "x", "label": "1"}, "label '1' of task 'mood'"),
        ({"task": "mood", "text": "x", "label": 2}, "label 2 of task 'mood'"),
        ({"task": "mood", "text": "x", "label": -1}, "label -1"),
        ({"task": "mood", "text": "x", "label": True}, "label True"),
        ({"task": "mood", "text": "x", "label": 1.0}, "label 1.0"),
        ({"task": "mood", "text": "x", "label": ""}, "label ''"),
        ({"task": "stars", "text": "x", "label": "many"}, "label 'many' of task 'stars' is no number"),
        ({"task": "stars", "text": "x", "label": "nan"}, "is no number"),
    ],
)
def test_rows_that_name_nothing_are_refused(encode: RowEncoder, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        encode(row)
    assert "\n" not in str(caught.value)


def test_settings_without_labels_are_refused() -> None:
    with pytest.raises(UsageError, match="task_labels"):
        RowEncoder(None, EptConfig(tasks=["a"]))
