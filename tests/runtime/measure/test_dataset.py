"""Folders as Hugging Face's ``datasets`` writes them (``datasets/``, see ``write.py`` there), and parquet files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eptx.errors import DataError, NotSupportedError
from eptx.runtime.measure import Row, Source, read_data

FOLDERS = Path(__file__).parent / "datasets"


def found(folder: Path, *tasks: str, task: str | None = None, most: int = 128) -> dict[str, list[Any]]:
    rows = read_data([Source(folder, task)], tasks, most)
    return {name: [(row.text, row.text_pair, row.label) for row in own] for name, own in rows.items()}


def write(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def test_one_data_set_in_shards_with_a_hidden_label() -> None:
    rows = [("good 3", "a film", None), ("good 0", "a film", 0), ("good 2", "a film", 1), ("good 1", "a film", 2)]
    assert found(FOLDERS / "shards", "mnli") == {"mnli": rows}
    assert found(FOLDERS / "shards", "mnli", most=3) == {"mnli": rows[:3]}
    last = read_data([Source(FOLDERS / "shards")], ["mnli"])["mnli"][-1]
    assert last.where == "shards/data-00001-of-00002.arrow, row 2"


def test_of_several_splits_validation_is_read() -> None:
    assert found(FOLDERS / "splits", "mnli") == {
        "mnli": [("validation 0", "a film", 1), ("validation 1", "a film", 2)],
    }
    assert found(FOLDERS / "splits" / "train", "mnli") == {"mnli": [("train 0", "a film", 0)]}


def test_splits_that_are_tasks() -> None:
    sst2, mnli = [("sst2 0", None, 1), ("sst2 1", None, 0)], [("mnli 0", "a film", 2)]
    assert found(FOLDERS / "tasks", "mnli", "sst2") == {"mnli": mnli, "sst2": sst2}
    assert found(FOLDERS / "tasks", "sst2", task="sst2") == {"sst2": sst2}


def test_a_repository_whose_configurations_are_tasks() -> None:
    sst2, mnli = [("sst2 0", None, 1), ("sst2 1", None, 0)], [("matched 0", "a film", 1)]
    assert found(FOLDERS / "hub", "mnli", "sst2") == {"mnli": mnli, "sst2": sst2}
    assert found(FOLDERS / "hub" / "sst2", "a") == {"a": sst2}
    assert found(FOLDERS / "hub" / "sst2" / "test-00000-of-00001.parquet", "a") == {"a": [("test 0", None, 0)]}


@pytest.mark.parametrize(
    "files",
    [
        ["data/validation-00000-of-00002.parquet", "data/validation-00001-of-00002.parquet"],
        ["plain/validation/0000.parquet", "plain/validation/0001.parquet"],
        ["validation.parquet"],
        [".cache/train.parquet", "dev-0.parquet", "train-0.parquet"],
    ],
)
def test_where_parquet_files_are(tmp_path: Path, files: list[str]) -> None:
    for number, file in enumerate(files):
        write(tmp_path / file, text=[f"{number}"])
    wanted = ["1"] if files[0].startswith(".") else [str(i) for i in range(len(files))]
    assert [text for text, _, _ in found(tmp_path, "a")["a"]] == wanted


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        ({"text": "x"}, Row("a", "x")),
        ({"text": "x", "text_pair": "y", "label": 0.5}, Row("a", "x", "y", label=0.5)),
        ({"sentence": "x", "labels": 2}, Row("a", "x", label=2)),
        ({"sentence1": "x", "sentence2": "y", "label": -1}, Row("a", "x", "y", label=-1)),
        ({"premise": "x", "hypothesis": "y", "label": "neutral"}, Row("a", "x", "y", label="neutral")),
        ({"question1": "x", "question2": "y"}, Row("a", "x", "y")),
        ({"question": "x", "sentence": "y"}, Row("a", "x", "y")),
        ({"prompt": "x", "completion": "y"}, Row("a", "x", label="y")),
        ({"sentence": "x", "input_ids": [5, 6], "attention_mask": [1, 1]}, Row("a", "x")),
        ({"input_ids": [5, 6, 0], "attention_mask": [1, 1, 0]}, Row("a", input_ids=(5, 6))),
        ({"input_ids": [5, 6, 0], "label": [7, 8]}, Row("a", input_ids=(5, 6, 0), label=(7, 8))),
        ({"text": "x", "task": "a", "image": b"\xff" * 99}, Row("a", "x")),
    ],
)
def test_columns(tmp_path: Path, columns: dict[str, Any], row: Row) -> None:
    write(tmp_path / "d.parquet", **{name: [value] for name, value in columns.items()})
    assert read_data([Source(tmp_path / "d.parquet")], ["a"]) == {"a": [row]}


def test_tasks_in_a_column(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", text=["1", "2", "3"], task=["b", None, "a"])
    texts = {task: [text for text, _, _ in rows] for task, rows in found(tmp_path, "a", "b").items()}
    assert texts == {"a": ["2", "3"], "b": ["1", "2"]}


def test_no_more_of_a_file_is_read_than_needed(tmp_path: Path) -> None:
    """The second group of rows is damaged; who needs the first does not notice."""
    file = tmp_path / "d.parquet"
    table = pa.table({"text": [f"text {i}" for i in range(2000)]})
    pq.write_table(table, file, row_group_size=1000, compression="zstd", write_statistics=False)
    start = pq.ParquetFile(file).metadata.row_group(1).column(0)
    data = bytearray(file.read_bytes())
    offset = start.dictionary_page_offset or start.data_page_offset
    data[offset : offset + 64] = bytes(64)
    file.write_bytes(data)
    assert len(found(file, "a", most=500)["a"]) == 500
    with pytest.raises(DataError, match=r"d\.parquet: cannot be read: "):
        found(file, "a", most=1500)


def write_arrow(folder: Path, texts: Any) -> Path:
    folder.mkdir()
    (folder / "state.json").write_text('{"_data_files": [{"filename": "d.arrow"}]}')
    batch = pa.record_batch({"text": texts})
    with pa.OSFile(str(folder / "d.arrow"), "wb") as file, pa.ipc.new_stream(file, batch.schema) as stream:
        stream.write_batch(batch)
    return folder


def test_a_large_batch(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(600)]
    rows = found(write_arrow(tmp_path / "d", pa.array(texts)), "a", most=600)["a"]
    assert [text for text, _, _ in rows] == texts


def test_texts_that_lie_past_the_end(tmp_path: Path) -> None:
    offsets = pa.py_buffer(np.array([0, 10**6, 4], np.int32).tobytes())
    folder = write_arrow(tmp_path / "d", pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"text")))
    with pytest.raises(DataError, match=r"d/d\.arrow: cannot be read: "):
        found(folder, "a")


#: name -> parquet files and their columns, what is said.
REFUSED: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "no column of texts": (
        {"d/dev.parquet": {"utterance": ["x"], "label": [1]}},
        "d/dev.parquet: no column of texts; it has 'utterance', 'label'; understood are text+text_pair, sentence1+",
    ),
    "several configurations": (
        {"d/x/dev.parquet": {"text": ["x"]}, "d/y/dev.parquet": {"text": ["x"]}},
        "d: holds several data sets ('x', 'y'); give the folder of one",
    ),
    "splits of other names": (
        {"d/left.parquet": {"text": ["x"]}, "d/right.parquet": {"text": ["x"]}},
        "d: has splits 'left', 'right'; none of them is validation, validation_matched, dev, test, train or named like",
    ),
    "texts that are numbers": ({"d/dev.parquet": {"text": [5]}}, "d/dev.parquet, row 1: must be an object with a"),
    "a text that is missing": ({"d/dev.parquet": {"text": ["x", None]}}, "d/dev.parquet, row 2: must be an object"),
    "labels that are true": (
        {"d/dev.parquet": {"text": ["x"], "label": [True]}},
        "d/dev.parquet, row 1: 'label' must be a number",
    ),
    "a task that is unknown": (
        {"d/dev.parquet": {"text": ["x"], "task": ["b"]}},
        "d/dev.parquet, row 1: unknown task 'b'; there are a",
    ),
    "a mask that is too short": (
        {"d/dev.parquet": {"input_ids": [[1, 2]], "attention_mask": [[1]]}},
        "d/dev.parquet: cannot be read: ",
    ),
    "no rows": ({"d/dev.parquet": {"text": pa.array([], pa.string())}}, "d: holds no rows"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str) -> None:
    files, said = REFUSED[name]
    for file, columns in files.items():
        write(tmp_path / file, **columns)
    with pytest.raises(DataError) as e:
        read_data([Source(tmp_path / "d")], ["a"])
    assert str(e.value).startswith(said) and "\n" not in str(e.value)


def test_without_pyarrow(tmp_path: Path) -> None:
    real = importlib.import_module

    def missing(name: str) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name)

    with (
        mock.patch("importlib.import_module", missing),
        pytest.raises(NotSupportedError, match=r"pip install 'eptx\[calibrate\]'"),
    ):
        read_data([Source(tmp_path)], ["a"])
