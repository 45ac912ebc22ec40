"""Files that come from the base, and the chat template, whichever file holds it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.validation.contents.files import ExpectedTask
from tests.exporter.validation.conftest import GOLDEN
from tests.exporter.validation.contents.files.made import TEMPLATE, Change, Made, damaged, edit, put, remove


def _write(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text) and None


def _turn_words(folder: Path) -> None:
    lines = (folder / "vocab.txt").read_text().splitlines()
    (folder / "vocab.txt").write_text("\n".join(lines[::-1]) + "\n")


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        (put("config.json", "id2label", {"0": "a", "1": "b", "2": "c"}), "config.json", "id2label is {"),
        (put("config.json", "layer_norm_eps", 1e-5), "config.json", "layer_norm_eps is 1e-05; the base has 1e-12"),
        (put("config.json", "use_cache", 1), "config.json", "use_cache is 1; the base has True"),
        (remove("config.json"), "config.json", "is missing; the base has it"),
        (_turn_words, "vocab.txt", "is not the base's"),
        (remove("vocab.txt"), "vocab.txt", "is missing; the base has it"),
        (_write("added_tokens.json", '{"<x>": 199}'), "added_tokens.json", "is not of the base"),
        (_write("generation_config.json", '{"eos_token_id": 3}'), "generation_config.json", "is not of the base"),
    ],
)
def test_a_file_that_is_not_the_bases(encoder: Made, tmp_path: Path, change: Change, name: str, said: str) -> None:
    wrong = encoder.wrong(damaged(encoder.bundle, tmp_path / "b", change))
    assert said in wrong.pop(name)
    assert wrong == {}


def test_a_decoders_settings(decoder: Made, tmp_path: Path) -> None:
    change = put("generation_config.json", "temperature", 0.7)
    wrong = decoder.wrong(damaged(decoder.bundle, tmp_path / "b", change))
    assert wrong == {"generation_config.json": "temperature is 0.7; the base has 0.6"}


def test_another_layout_of_the_same_values_is_the_same(encoder: Made, tmp_path: Path) -> None:
    change = edit("config.json", lambda content: content.update(sorted(content.items())))
    assert encoder.wrong(damaged(encoder.bundle, tmp_path / "b", change)) == {}


def test_a_file_that_nobody_knows_is_said(encoder: Made, tmp_path: Path) -> None:
    bundle = damaged(encoder.bundle, tmp_path / "b", _write("notes.txt", "mine"))
    assert [check.name for check in encoder.checks(bundle) if check.how == "unchecked"] == ["notes.txt"]


@pytest.mark.parametrize("inside", [False, True], ids=["a file", "in the settings"])
def test_another_chat_template(decoder: Made, tmp_path: Path, inside: bool) -> None:
    template = TEMPLATE.replace("role", "name")
    file = "tokenizer_config.json" if inside else "chat_template.jinja"
    change = put(file, "chat_template", template) if inside else _write(file, template)
    wrong = decoder.wrong(damaged(decoder.bundle, tmp_path / "b", change))
    assert wrong == {f"chat template ({file})": "is not the base's"}


def test_a_chat_template_in_the_other_file_is_the_same(decoder: Made, tmp_path: Path) -> None:
    change = put("tokenizer_config.json", "chat_template", TEMPLATE)
    bundle = damaged(decoder.bundle, tmp_path / "b", remove("chat_template.jinja"), change)
    assert decoder.wrong(bundle) == {}


def test_a_chat_template_that_is_missing(decoder: Made, tmp_path: Path) -> None:
    wrong = decoder.wrong(damaged(decoder.bundle, tmp_path / "b", remove("chat_template.jinja")))
    assert wrong == {"chat template": "is missing; the base has one"}


def test_a_chat_template_from_nowhere(encoder: Made, tmp_path: Path) -> None:
    wrong = encoder.wrong(damaged(encoder.bundle, tmp_path / "b", _write("chat_template.jinja", TEMPLATE)))
    assert wrong == {"chat template (chat_template.jinja)": "is there; the base has none"}


def test_a_base_without_a_tokenizer(encoder: Made, bert_onnx: Path, ept: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(GOLDEN / "ept_bert48" / "base", tmp_path / "base"))
    options = ExportOptions(mode="static", task="mnli", top_k=2, base_onnx=bert_onnx)
    bundle = export_bundle(base, [ept], tmp_path / "bundle", options)
    made = Made(bundle, base, [ExpectedTask("mnli", 3, None)], "AutoModel")
    assert [check for check in made.checks() if check.wrong or check.how != "compared"] == []
    copy = damaged(bundle, tmp_path / "b", lambda f: shutil.copy(encoder.base / "tokenizer.json", f) and None)
    assert made.wrong(copy) == {"tokenizer.json": "is not of the base, which has no tokenizer"}


def test_a_bundle_of_an_onnx_file_alone(encoder: Made, bert_onnx: Path, ept: Path, tmp_path: Path) -> None:
    options = ExportOptions(mode="conditioned", top_k=2, base_onnx=bert_onnx)
    bundle = export_bundle(None, [ept], tmp_path / "bundle", options)
    made = Made(bundle, encoder.base, encoder.tasks, encoder.auto)
    assert made.wrong() == {}
    left_open = {check.name for check in made.checks() if check.how == "unchecked"}
    assert left_open == {"eptx.json: vocab_size", "config.json"}  # how long a text may be, the graph tells
    assert json.loads((bundle.path / "eptx.json").read_text())["sources"]["base"] is False
