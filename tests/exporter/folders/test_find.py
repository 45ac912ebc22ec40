"""Which folders are meant: adapters inside a folder, a base that the adapter names, names of tasks, wrong arguments."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from eptx.errors import EptxError
from eptx.exporter.adapters.task_names import names_of
from eptx.exporter.folders import find_adapters, find_arguments, find_folders
from eptx.exporter.trained.folder_names import folder_names
from eptx.progress import shown


def _write(folder: Path, name: str, **content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder


def base(folder: Path) -> Path:
    (_write(folder, "config.json", model_type="bert") / "model.safetensors").write_bytes(b"")
    return folder


def adapter(folder: Path, **config: Any) -> Path:
    (_write(folder, "adapter_config.json", peft_type="LORA", **config) / "adapter_model.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a base, adapters, and what people have beside them; it is the current one."""
    monkeypatch.chdir(tmp_path)
    base(tmp_path / "base")
    adapter(tmp_path / "ner", base_model_name_or_path="base")
    adapter(tmp_path / "sst", base_model_name_or_path="base")
    adapter(tmp_path / "other", base_model_name_or_path="base2")
    adapter(tmp_path / "nobody")
    adapter(tmp_path / "gone", base_model_name_or_path=str(tmp_path / "no" / "such" / "base"))
    adapter(tmp_path / "named" / "default", base_model_name_or_path="base")
    adapter(tmp_path / "one" / "checkpoint-9")
    adapter(tmp_path / "deep" / "checkpoint-9" / "default")
    for step in (500, 1000):
        adapter(tmp_path / "runs" / f"checkpoint-{step}")
    shutil.copytree(tmp_path / "ner", tmp_path / "two")
    adapter(tmp_path / "two" / "second")
    for name in ("model.gguf", "base.onnx", "adapter_model.safetensors", "notes"):
        (tmp_path / name).write_bytes(b"")
    _write(tmp_path / "ner", "config.json", model_type="bert")  # some trainers save it beside the adapter
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "found", "told"),
    [
        ("base ner", "base ner", ""),
        ("base ner sst", "base ner sst", ""),
        ("ner", "base ner", "base: base (no BASE is given; adapter_config.json names it)"),
        ("ner sst", "base ner sst", "base: base"),
        ("named", "base named/default", "named: the adapter in it is default"),
        ("base one", "base one/checkpoint-9", "one: the adapter in it is checkpoint-9"),
        ("base deep", "base deep/checkpoint-9/default", "the adapter in it is checkpoint-9/default"),
        ("base two", "base two", "two: also holds adapters with a name (second), which are not exported"),
    ],
)
def test_found(here: Path, capsys: pytest.CaptureFixture[str], arguments: str, found: str, told: str) -> None:
    with shown():
        result = find_arguments(arguments.split())
    assert [str(result.base), *map(str, result.adapters)] == found.split()
    said = capsys.readouterr().err
    assert told in said
    assert bool(told) == bool(said)


def test_one_adapter_needs_no_list(here: Path) -> None:
    for adapter in ("ner", Path("ner")):
        assert find_folders("base", adapter).adapters == find_adapters(adapter) == (Path("ner"),)
    with pytest.raises(EptxError, match="base is given as the base and as an adapter"):
        find_folders("base", "base")


def test_an_onnx_base_needs_no_folder(here: Path) -> None:
    assert find_arguments(["nobody"], onnx=True).base is None
    assert find_arguments(["ner", "sst"], onnx=True).adapters == (Path("ner"), Path("sst"))


#: What is refused: arguments -> exit code, and how the message goes.
REFUSED = {
    "ner base": (2, "ner is an adapter's folder and base a base model's: give the base first"),
    "base base": (2, "base is given as the base and as an adapter"),
    "base ner ner": (2, "the adapter ner is given twice"),
    "base": (2, "base is a base model's folder, and no adapter is given: give BASE and ADAPTER"),
    "nobody": (2, "no base is given, and nobody/adapter_config.json names none (base_model_name_or_path=None)"),
    "ner other": (2, "the adapters name different bases, base, base2: give BASE before them"),
    "gone": (3, "no such base model folder; or give BASE before the adapter"),
    "base runs": (
        2,
        "runs: holds 2 adapters and is none itself: give the one you mean: runs/checkpoint-500, runs/c",
    ),
    "base ner/x/y": (3, "ner/x/y: no such adapter folder"),
    "model.gguf ner": (
        3,
        "model.gguf: no such base model folder; this is a file: eptx does not read GGUF: give",
    ),
    "base.onnx ner": (
        3,
        "base.onnx: no such base model folder; this is a file: an ONNX base is given with --base",
    ),
    "base adapter_model.safetensors": (
        3,
        "no such adapter folder; this is a file: give the folder that it lies in",
    ),
    "base notes": (3, "notes: no such adapter folder; this is a file"),
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_refused(here: Path, arguments: str) -> None:
    code, said = REFUSED[arguments]
    with pytest.raises(EptxError) as refused:
        find_arguments(arguments.split())
    assert refused.value.exit_code == code
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_of_several_is_taken_by_the_path_that_the_message_names(here: Path) -> None:
    with pytest.raises(EptxError) as refused:
        find_adapters(["runs"])
    named = str(refused.value).partition("you mean: ")[2].split(", ")
    assert [find_adapters([path]) for path in named] == [
        (Path("runs/checkpoint-500"),),
        (Path("runs/checkpoint-1000"),),
    ]


_CACHE = "/c/models--{}--{}/snapshots/a1"
NAMES = {
    ("a/ner", "b/sst"): ("ner", "sst"),
    ("run1/checkpoint-500", "run2/checkpoint-500"): ("run1", "run2"),
    ("run1/checkpoint-500", "ner"): ("run1", "ner"),
    ("run1/checkpoint-500", "run1/checkpoint-1000"): ("checkpoint-500", "checkpoint-1000"),
    ("a/x/c", "a/y/c", "b/x/c"): ("a-x", "a-y", "b-x"),
    ("a/default", "b/default"): ("a", "b"),
    (_CACHE.format("u", "ner"), _CACHE.format("u", "sst")): ("ner", "sst"),
    (_CACHE.format("u", "ner"), f"{_CACHE.format('v', 'ner')}/default"): ("u", "v"),
    ("/x", "/a/x"): ("x", "a"),
}


@pytest.mark.parametrize("folders", NAMES)
def test_names_of_tasks(folders: tuple[str, ...]) -> None:
    """The exporter's rule and the judge's, which are two."""
    paths = [Path("/top") / folder for folder in folders]
    assert tuple(names_of(paths)) == NAMES[folders]
    assert tuple(folder_names(paths)) == NAMES[folders]
    assert names_of(paths[::-1]) == names_of(paths)[::-1]
