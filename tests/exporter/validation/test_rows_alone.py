"""The rows of a padded batch one by one, without what stands at padding."""

from __future__ import annotations

import numpy as np

from eptx.runtime.validation.batch import ANSWER_IDS, Batch, rows_alone

MASK = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])


def test_a_batch_without_padding_stays_whole() -> None:
    batch = Batch("b", {"input_ids": np.ones((2, 5)), "attention_mask": np.ones((2, 5))}, ("a", "b"))
    assert list(rows_alone(batch)) == [batch]


def test_padding_is_left_out_on_either_side() -> None:
    ids = np.arange(10).reshape(2, 5)
    for mask, kept in ((MASK, [2, 3, 4]), (MASK[:, ::-1], [0, 1, 2])):
        first, second = rows_alone(Batch("b", {"input_ids": ids, "attention_mask": mask}, ("a", "b"), prompt=4))
        assert first.arrays["input_ids"].tolist() == [kept]
        assert first.prompt == sum(column < 4 for column in kept)
        assert (first.tasks, second.tasks, second.prompt) == (("a",), ("b",), 4)
        assert second.arrays["input_ids"].tolist() == [[5, 6, 7, 8, 9]]


def test_an_answer_has_no_padding() -> None:
    arrays = {"input_ids": np.ones((2, 5)), "attention_mask": MASK, ANSWER_IDS: np.arange(6).reshape(2, 3)}
    first, _ = rows_alone(Batch("b", arrays, ("a", "b"), prompt=2))
    assert first.arrays[ANSWER_IDS].tolist() == [[0, 1, 2]]
    assert (first.arrays["input_ids"].shape, first.prompt) == ((1, 3), 2)
