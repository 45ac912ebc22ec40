"""Data to measure on that is damaged, incomplete, or not about the bundle's tasks."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eptx import Session
from eptx.errors import DataError
from eptx.runtime.measure import Probe, Source, read_data
from tests.malformed.scene import Cli, Scene

HERE = Path(__file__).parents[2]
DATASETS, GOLDEN = HERE / "runtime" / "measure" / "datasets", HERE / "golden" / "tucka_bert48"
GOOD = {"input_ids": [1, 2, 3]}


def _lines(*rows: object) -> Callable[[Path], Any]:
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    return _bytes(text.encode())


def _bytes(data: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(data)


def _damaged_parquet(path: Path) -> None:
    path.mkdir()
    data = (DATASETS / "hub" / "mnli" / "train-00000-of-00001.parquet").read_bytes()
    (path / "dev.parquet").write_bytes(data[:-100])


def _copied(change: Callable[[Path], Any]) -> Callable[[Path], None]:
    """One data set that ``datasets`` wrote, changed."""

    def make(path: Path) -> None:
        shutil.copytree(DATASETS / "splits" / "validation", path)
        change(path)

    return make


def _state(**values: object) -> Callable[[Path], None]:
    return _copied(lambda folder: (folder / "state.json").write_text(json.dumps(values)))


def _splits(path: Path) -> None:
    shutil.copytree(DATASETS / "splits", path)
    shutil.rmtree(path / "validation")


def _loop(path: Path) -> None:
    path.mkdir()
    for name in ("a", "b", "data"):
        (path / name).symlink_to("..", target_is_directory=True)


#: name -> what makes the file or folder d, what is said.
SOURCES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nothing there": (lambda p: None, "d: cannot be read: No such file or directory"),
    "an empty file": (_bytes(b""), "d: holds no rows"),
    "a file of blank lines": (_bytes(b"\n \n\t\r\n"), "d: holds no rows"),
    "half a line": (_lines(GOOD, '{"input_ids": [1, '), "d, line 2: not valid JSON"),
    "bytes that are not UTF-8": (_bytes(b'\n{"text": "\xff"}\n'), "d, line 2: not UTF-8 text"),
    "UTF-16": (_bytes('{"text": "x"}\n'.encode("utf-16")), "d, line 1: UTF-16 text; save it as UTF-8"),
    "a null byte": (_bytes(b'{"text": \0}\n'), "d, line 1: not valid JSON"),
    "half of a surrogate pair": (_lines('{"text": "\\ud800"}\n'), "d, line 1: a string holds half of a surrogate"),
    "a line without an end": (_bytes(b"[" * (1 << 20)), "d, line 1: longer than 1048576 bytes"),
    "too long a line": (_lines(GOOD, {"text": "x" * (1 << 20)}), "d, line 2: longer than 1048576 bytes"),
    "a line that is too deep": (_bytes(b"[" * 100_000), "d, line 1: nested too deeply"),
    "a key twice": (_lines('{"text": "a", "text": "b"}\n'), "d, line 1: not valid JSON: the key 'text' appears twice"),
    "NaN": (_lines('{"text": "a", "label": NaN}\n'), "d, line 1: not valid JSON: NaN is not a number"),
    "a number past any float": (_lines('{"text": "a", "label": 1e999}\n'), "d, line 1: not valid JSON: the number"),
    "an integer past any length": (_lines('{"text": "a", "label": ' + "9" * 5000 + "}\n"), "d, line 1: not valid JSON"),
    "an integer past 64 bits": (_lines(GOOD | {"label": 2**64}), "d, line 1: 'label' must be"),
    "a list": (_lines([GOOD]), "d, line 1: must be an object with a string 'text' or a list 'input_ids' of token ids"),
    "no text": (_lines(GOOD, {"label": 1}), "d, line 2: must be an object with a string 'text'"),
    "a text of nothing": (_lines({"text": None}), "d, line 1: must be an object with a string 'text'"),
    "a text that is a number": (_lines({"text": 1}), "d, line 1: must be an object with a string 'text'"),
    "a second text that is a list": (_lines({"text": "a", "text_pair": ["b"]}), "d, line 1: 'text_pair' must be a str"),
    "token ids that are texts": (_lines({"input_ids": ["1"]}), "d, line 1: must be an object with a string 'text'"),
    "a task that is a number": (_lines(GOOD | {"task": 1}), "d, line 1: 'task' must be a string"),
    "an unknown task": (_lines(GOOD, GOOD | {"task": "rte"}), "d, line 2: unknown task 'rte'; there are "),
    "a label that is true": (
        _lines(GOOD | {"label": True}),
        "d, line 1: 'label' must be a number, a name, a text, or a list",
    ),
    "a label that is an object": (_lines(GOOD | {"label": {}}), "d, line 1: 'label' must be a number"),
    "an empty folder": (lambda p: p.mkdir(), "d: holds no data set: neither what save_to_disk writes nor parquet"),
    "a folder of something else": (
        lambda p: shutil.copytree(GOLDEN, p),
        "d: holds no data set: neither what save_to_disk writes nor parquet files",
    ),
    "folders in circles": (_loop, "d: holds no data set"),
    "a link in a circle": (lambda p: p.symlink_to(p), "d: cannot be read: Too many levels of symbolic links"),
    "a FIFO": (os.mkfifo, "d: not a regular file"),
    "a FIFO in a folder": (
        lambda p: (p.mkdir(), os.mkfifo(p / "dev.parquet")),
        "dev.parquet: not a regular file",
    ),
    "a parquet file that is cut": (_damaged_parquet, "d/dev.parquet: cannot be read: "),
    "a parquet file of text": (
        lambda p: (p.mkdir(), (p / "dev.parquet").write_text('{"text": "x"}')),
        "d/dev.parquet: cannot be read: ",
    ),
    "an arrow file that is cut": (
        _copied(lambda d: os.truncate(d / "data-00000-of-00001.arrow", 700)),
        "d/data-00000-of-00001.arrow: cannot be read: ",
    ),
    "an arrow file that is missing": (
        _copied(lambda d: (d / "data-00000-of-00001.arrow").unlink()),
        "data-00000-of-00001.arrow: cannot be read: No such file",
    ),
    "a split that is missing": (_splits, "state.json: cannot be read: No such file"),
    "a state without files": (_state(), "d/state.json: '_data_files' is not a list of names"),
    "a state of another folder's files": (
        _state(_data_files=[{"filename": "../../secret.arrow"}]),
        "d/state.json: '_data_files' is not a list of names",
    ),
    "a state of no files": (_state(_data_files=[]), "d: holds no rows"),
    "a state that is cut": (_copied(lambda d: os.truncate(d / "state.json", 20)), "state.json: not valid JSON"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_sources(tmp_path: Path, name: str) -> None:
    make, said = SOURCES[name]
    make(tmp_path / "d")
    with pytest.raises(DataError) as e:
        read_data([Source(tmp_path / "d")], ["sst2", "mnli"])
    assert said in str(e.value) and "\n" not in str(e.value) and str(tmp_path) not in str(e.value)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "nothing there"])
def test_sources_of_an_export(tmp_path: Path, cli: Cli, name: str) -> None:
    """The same line ends the command, which leaves nothing behind."""
    make, said = SOURCES[name]
    make(tmp_path / "d")
    base, adapter = GOLDEN / "base", GOLDEN / "adapter"
    settings: list[str | Path] = ["--mode", "conditioned", "--calibration-data", tmp_path / "d"]
    cli.refuses(3, said, "export", "-q", base, adapter, "-o", tmp_path / "b", *settings)
    assert not (tmp_path / "b").exists()


def test_one_task_without_rows(tmp_path: Path) -> None:
    rows = [{"text": "x", "task": task} for task in ("sst2", "mnli", "sst2")]
    _lines(*rows)(tmp_path / "d")
    with pytest.raises(DataError) as e:
        read_data([Source(tmp_path / "d")], ["sst2", "stsb", "mnli"])
    assert str(e.value) == "d: has no rows of stsb; every task needs some"


def test_data_of_one_task_that_names_another(tmp_path: Path) -> None:
    _lines({"text": "x"}, {"text": "x", "task": "mnli"})(tmp_path / "d")
    with pytest.raises(DataError) as e:
        read_data([Source(tmp_path / "d", "sst2")], ["sst2", "mnli"])
    assert str(e.value) == "d, line 2: is of task 'mnli', in data given for 'sst2'"


#: name -> a row of the tiny bundle (sst2 has labels negative and positive, mnli three, stsb a value), what is said.
LABELS: dict[str, tuple[dict[str, object], str]] = {
    "too large": ({"task": "mnli", "label": 3}, "a label of mnli is 3, out of range; they are 0 to 2"),
    "negative": ({"task": "sst2", "label": -1}, "a label of sst2 is -1, out of range; they are 0 to 1"),
    "a fraction": ({"task": "sst2", "label": 0.5}, "a label of sst2 is 0.5, out of range; they are 0 to 1"),
    "an unknown name": (
        {"task": "sst2", "label": "so-so"},
        "which is not one of the task's; it has negative, positive",
    ),
    "a number as a name": ({"task": "sst2", "label": "1"}, "a label of sst2 is '1', which is not one of the task's"),
    "a name for a value": ({"task": "stsb", "label": "high"}, "a label of stsb is 'high', which is not one of"),
    "tokens": ({"task": "sst2", "label": [1]}, "a label of sst2 is (1,), which is not one of the task's"),
    "a long text": ({"task": "sst2", "label": "x" * 9999}, "a label of sst2 is 'xxxxx"),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels(pristine: Scene, tmp_path: Path, name: str) -> None:
    row, said = LABELS[name]
    good = {"text": "good film", "label": 0}
    _lines(*(good | {"task": task} for task in ("sst2", "mnli", "stsb")), "\n", {"text": "a book"} | row)(
        tmp_path / "d"
    )
    rows = read_data([Source(tmp_path / "d")], ["sst2", "mnli", "stsb"])
    with pytest.raises(DataError) as e:
        Probe(Session(pristine.tiny, threads=1), rows)
    assert str(e.value).startswith("d, line 5: ") and said in str(e.value)
    assert "\n" not in str(e.value) and len(str(e.value)) < 300


#: name -> what follows a good row of every task of the scene's adapter, what is said.
ROWS: dict[str, tuple[dict[str, object], str]] = {
    "a label too large": ({"task": "mnli", "label": 3}, "d, line 4: a label of mnli is 3, out of range; they are 0 to"),
    "an unknown name": ({"task": "cola", "label": "yes"}, "d, line 4: a label of cola is 'yes', which is not one of"),
    "a token id too large": (
        {"task": "mnli", "input_ids": [20]},
        "d, line 4: holds token id 20; the model has token ids 0 to 19",
    ),
    "an unknown task": ({"task": "rte"}, "d, line 4: unknown task 'rte'; there are cola, mnli, stsb"),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_a_quantized_export(pristine: Scene, tmp_path: Path, cli: Cli, name: str) -> None:
    row, said = ROWS[name]
    tasks = ("cola", "mnli", "stsb")
    _lines(*(GOOD | {"task": task, "label": 1} for task in tasks), GOOD | {"label": 0} | row)(tmp_path / "d")
    _refused_export(pristine, tmp_path, cli, tmp_path / "d", said)


def test_a_quantized_export_without_rows_of_a_task(pristine: Scene, tmp_path: Path, cli: Cli) -> None:
    _lines(GOOD | {"task": "cola"}, GOOD | {"task": "stsb"})(tmp_path / "d")
    _refused_export(pristine, tmp_path, cli, tmp_path / "d", "d: has no rows of mnli; every task needs some")
    _refused_export(
        pristine, tmp_path, cli, f"cola={tmp_path / 'd'}", "d, line 2: is of task 'stsb', in data given for"
    )


def _refused_export(scene: Scene, folder: Path, cli: Cli, data: str | Path, said: str) -> None:
    settings = ["--mode", "conditioned", "--top-k", "2", "--precision", "int8-static", "--calibration-data", data]
    files = ["--base-onnx", scene.onnx, "-o", folder / "b"]
    cli.refuses(3, said, "export", "-q", scene.base, scene.ept, *files, *settings)
    assert not (folder / "b").exists()


@pytest.mark.parametrize("file", ["splits/validation/data-00000-of-00001.arrow", "hub/ax/test-00000-of-00001.parquet"])
def test_damage_anywhere(tmp_path: Path, file: str) -> None:
    """It is read, or refused in one line."""
    target = Path(shutil.copytree((DATASETS / file).parent, tmp_path / "d")) / Path(file).name
    data, rng, refused = target.read_bytes(), random.Random(1), 0
    for _ in range(60):
        damaged = bytearray(data if rng.random() < 0.8 else data[: rng.randrange(len(data))])
        for _ in range(rng.choice((1, 2, 8)) if damaged else 0):
            damaged[rng.randrange(len(damaged))] = rng.choice((0, 127, 128, 255))
        target.write_bytes(damaged)
        try:
            read_data([Source(tmp_path / "d", "a")], ["a"])
        except DataError as error:
            refused += 1
            assert "\n" not in str(error) and target.name in str(error)
    assert refused > 20
