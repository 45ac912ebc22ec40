"""What becomes of rows: how many of each task, their labels, and where reading stops."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eptx.errors import DataError
from eptx.runtime.measure import Row, Source, read_data


def texts(rows: dict[str, list[Row]]) -> dict[str, list[str | None]]:
    return {task: [row.text for row in own] for task, own in rows.items()}


def test_reading_stops_when_there_are_enough_rows() -> None:
    """The rows never end; what is read of them is what it takes to have two of each task."""
    read: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        for number in itertools.count():
            read.append(number)
            yield {"text": f"t{number}", "task": "b" if number % 5 == 4 else "a"}

    assert texts(read_data([Source(rows())], ["a", "b"], 2)) == {"a": ["t0", "t1"], "b": ["t4", "t9"]}
    assert read == [*range(10)]


def test_rows_of_one_task_may_all_be_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    rows = [{"text": f"t{i}", "task": "ab"[i >= 500]} for i in range(501)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_data([Source(file)], ["a", "b"], 3)
    assert texts(found) == {"a": ["t0", "t1", "t2"], "b": ["t500"]}
    assert found["b"][0].where == "d.jsonl, line 501"


def test_lines_that_are_not_needed_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('\n{"text": "x"}\n \nnot json\n')
    assert texts(read_data([Source(tmp_path / "d.jsonl")], ["a"], 1)) == {"a": ["x"]}
    marked = '{"text": "x"}\n\ufeff\n\ufeff{"text": "y"}\n'  # files one after the other have a mark inside too
    (tmp_path / "marked.jsonl").write_text(marked, encoding="utf-8-sig")
    assert texts(read_data([Source(tmp_path / "marked.jsonl")], ["a"])) == {"a": ["x", "y"]}
    (tmp_path / "wide.jsonl").write_text('{"text": "x"}\n', encoding="utf-16")
    with pytest.raises(DataError, match=r"wide.jsonl, line 1: UTF-16 text; save it as UTF-8"):
        read_data([Source(tmp_path / "wide.jsonl")], ["a"])
    with pytest.raises(DataError, match=r"d.jsonl, line 4: not valid JSON"):
        read_data([Source(tmp_path / "d.jsonl")], ["a"], 2)


def test_several_sources_fill_a_task_in_their_order() -> None:
    sources = [Source([{"text": "1"}], "a"), Source([{"text": "2"}], "b"), Source([{"text": "3"}, {"text": "4"}], "a")]
    assert texts(read_data(sources, ["a", "b"], 2)) == {"a": ["1", "3"], "b": ["2"]}


def test_a_row_without_a_task_counts_for_every_task_and_has_no_label() -> None:
    rows = [{"text": "all", "label": 1, "task": None}, {"text": "one", "label": 1, "task": "b"}]
    found = read_data([Source(rows)], ["a", "b"])
    assert texts(found) == {"a": ["all"], "b": ["all", "one"]}
    assert [row.label for row in found["b"]] == [None, 1]
    assert [row.label for row in read_data([Source([{"text": "x", "label": 1}])], ["a"])["a"]] == [1]
    assert [row.label for row in read_data([Source([{"text": "x", "label": 1}], "a")], ["a"])["a"]] == [1]


@pytest.mark.parametrize(
    ("given", "label"),
    [
        (None, None),
        (2, 2),
        (2.5, 2.5),
        ("positive", "positive"),
        (np.int64(2), 2),
        (np.float32(2.5), 2.5),
        (np.array(2), 2),
        (np.str_("positive"), "positive"),
        (torch.tensor(2), 2),
        ([3, 4], (3, 4)),
        ((3, np.int32(4)), (3, 4)),
        (np.array([3, 4]), (3, 4)),
    ],
)
def test_labels(given: Any, label: Any) -> None:
    (row,) = read_data([Source([{"text": "x", "label": given}])], ["a"])["a"]
    assert row.label == label and type(row.label) in (type(label), np.str_)


@pytest.mark.parametrize("ids", [[1, 2], (1, 2), np.array([1, 2], np.uint8), torch.tensor([1, 2]), [np.int64(1), 2]])
def test_token_ids(ids: Any) -> None:
    (row,) = read_data([Source([{"input_ids": ids}])], ["a"])["a"]
    assert row.input_ids == (1, 2) and {type(i) for i in row.input_ids} == {int}


REFUSED: dict[str, tuple[Any, str]] = {
    "a text": ("x", "row 2: must be a mapping with a string 'text'"),
    "nothing": ({}, "row 2: must be an object with a string 'text' or a list 'input_ids' of token ids"),
    "a text that is a number": ({"text": 3}, "row 2: must be an object with a string 'text'"),
    "a second text that is a number": ({"text": "x", "text_pair": 3}, "row 2: 'text_pair' must be a string"),
    "a task that is a number": ({"text": "x", "task": 0}, "row 2: 'task' must be a string"),
    "an unknown task": ({"text": "x", "task": "c"}, "row 2: unknown task 'c'; there are a, b"),
    "another task": ({"text": "x", "task": "b"}, "row 2: is of task 'b', in data given for 'a'"),
    "token ids in two dimensions": ({"input_ids": np.ones((1, 2), int)}, "row 2: must be an object"),
    "token ids that are fractions": ({"input_ids": np.ones(2)}, "row 2: must be an object"),
    "token ids that are true": ({"input_ids": [True]}, "row 2: must be an object"),
    "wrong token ids beside a text": ({"text": "x", "input_ids": [-1]}, "row 2: 'input_ids' must be a list of token"),
    "a label that is true": ({"text": "x", "label": True}, "row 2: 'label' must be a number, a name,"),
    "a label that is NumPy's true": ({"text": "x", "label": np.True_}, "a list of labels or token ids, not True"),
    "a label that is an object": ({"text": "x", "label": {"a": 1}}, "not {'a': 1}"),
    "labels of two kinds": ({"text": "x", "label": ["y", 1]}, "row 2: 'label' must be"),
    "a label of negative tokens": ({"text": "x", "label": [-1]}, "row 2: 'label' must be"),
    "a label past 64 bits": ({"text": "x", "label": 10**9999}, "not an integer past 64 bits"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_rows(name: str) -> None:
    row, said = REFUSED[name]
    with pytest.raises(DataError) as e:
        read_data([Source([{"text": "x"}, row], "a")], ["a", "b"])
    assert said in str(e.value) and str(e.value).startswith("the rows given, row 2: ") and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ([], "no data: holds no rows"),
        ([Source([])], "the rows given: holds no rows"),
        ([Source([{"text": "x", "task": "a"}])], "the rows given: has no rows of b, c; every task needs some"),
        ([Source([{"text": "x"}], "d")], "the rows given: unknown task 'd'; there are a, b, c"),
    ],
)
def test_refused_sources(sources: list[Source], said: str) -> None:
    with pytest.raises(DataError) as e:
        read_data(sources, ["a", "b", "c"])
    assert str(e.value) == said
