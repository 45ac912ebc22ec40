"""What serves must read a text as transformers does with the base's tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eptx.exporter.validation.contents.files.hard_texts import PAIRS, TEXTS
from tests.exporter.validation.contents.files.made import Made, damaged, edit, put

FILE, SETTINGS, IDS = "tokenizer.json", "tokenizer_config.json", "tokenizer: ids"


def _swap(content: dict[str, Any], first: str, second: str) -> None:
    words = content["model"]["vocab"]
    words[first], words[second] = words[second], words[first]


def _one_sided(content: dict[str, Any]) -> None:
    content["post_processor"]["pair"] = [*content["post_processor"]["single"], {"Sequence": {"id": "B", "type_id": 0}}]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: _swap(c, "the", "word"), "its model has another vocab ('the' is 90, not 89) than"),
        (lambda c: _swap(c, "q", "##z"), "its model has another vocab ('##z' is 37, not 56) than"),
        (lambda c: c["model"].update(unk_token="[SEP]"), "its model has another unk_token than the base's"),
        (lambda c: c["normalizer"].update(lowercase=False), "its normalizer is not the base's"),
        (lambda c: c["normalizer"].update(strip_accents=False), "its normalizer is not the base's"),
        (lambda c: c.update(pre_tokenizer={"type": "WhitespaceSplit"}), "its pre_tokenizer is not the base's"),
        (lambda c: c.update(post_processor=None), "its post_processor is not the base's"),
        (_one_sided, "its post_processor is not the base's"),
        (lambda c: c["added_tokens"].pop(), "its added_tokens is not the base's"),
    ],
)
def test_another_tokenizer(encoder: Made, tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    wrong = encoder.wrong(damaged(encoder.bundle, tmp_path / "b", edit(FILE, change)))
    assert said in wrong.pop(FILE)
    assert set(wrong) <= {IDS}  # unless no text of the fixed set holds what was changed


def test_the_fixed_texts_find_other_ids(encoder: Made, tmp_path: Path) -> None:
    wrong = encoder.wrong(damaged(encoder.bundle, tmp_path / "b", edit(FILE, lambda c: _swap(c, "a", "."))))
    assert "gives [2, " in wrong[IDS] and "the base's gives [2, " in wrong[IDS]


def test_truncation_and_padding_of_the_training_script_are_not_used(encoder: Made, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
        content["padding"] = {"strategy": {"Fixed": 8}, "direction": "Left", "pad_id": 0, "pad_type_id": 0}
        content["padding"] |= {"pad_to_multiple_of": None, "pad_token": "[PAD]"}

    assert encoder.wrong(damaged(encoder.bundle, tmp_path / "b", edit(FILE, change))) == {}


@pytest.mark.parametrize(
    ("keys", "value", "said", "checks"),
    [
        ("padding_side", "left", "padding_side is 'left'; the base's is 'right'", {SETTINGS}),
        ("pad_token", "[SEP]", "special_tokens_map is ", {SETTINGS}),
        ("truncation_side", "left", "truncation_side is 'left'; the base's is 'right'", {SETTINGS}),
        ("model_max_length", 32, "model_max_length is 32; the base's is ", {SETTINGS}),
        ("sep_token", "[MASK]", "special_tokens_map is ", {SETTINGS}),
        ("model_input_names", ["input_ids"], "model_input_names is ['input_ids']", {SETTINGS}),
    ],
)
def test_other_settings(encoder: Made, tmp_path: Path, keys: str, value: Any, said: str, checks: set[str]) -> None:
    wrong = encoder.wrong(damaged(encoder.bundle, tmp_path / "b", put(SETTINGS, keys, value)))
    assert said in wrong[SETTINGS]
    assert set(wrong) == checks


def test_settings_written_otherwise_are_the_same(encoder: Made, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["model_max_length"] = 64  # what the model reads, as GenAI's builder writes it
        content["name_or_path"] = "elsewhere"

    assert encoder.wrong(damaged(encoder.bundle, tmp_path / "b", edit(SETTINGS, change))) == {}


@pytest.mark.parametrize("name", [FILE, SETTINGS])
def test_a_file_that_is_missing(encoder: Made, tmp_path: Path, name: str) -> None:
    wrong = encoder.wrong(damaged(encoder.bundle, tmp_path / "b", lambda folder: (folder / name).unlink()))
    assert wrong[name].startswith("is missing; the base has it")


def test_a_base_whose_tokenizer_transformers_builds(encoder: Made, tmp_path: Path) -> None:
    """From a vocabulary alone: the bundle must have what transformers makes of it."""
    base = Path(shutil.copytree(encoder.base, tmp_path / "base"))
    (base / FILE).unlink()
    (base / SETTINGS).write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))

    def change(folder: Path) -> None:
        (folder / FILE).unlink()
        shutil.copy(base / SETTINGS, folder / SETTINGS)

    made = Made(damaged(encoder.bundle, tmp_path / "b", change), base, encoder.tasks, encoder.auto)
    assert list(made.wrong()) == [FILE]


def test_texts_that_are_cut_on_the_other_side(encoder: Made, tmp_path: Path) -> None:
    """A base that drops a text's beginning, and a bundle that says that it drops the end."""
    base = Path(shutil.copytree(encoder.base, tmp_path / "base"))
    put(SETTINGS, "truncation_side", "left")(base)
    bundle = damaged(encoder.bundle, tmp_path / "b", put(SETTINGS, "truncation_side", "left"))
    wrong = Made(bundle, base, encoder.tasks, encoder.auto).wrong()
    assert list(wrong) == ["eptx.json: text", IDS]
    assert "https:" in wrong[IDS]  # the first text past 64 tokens


def test_the_fixed_set_is_as_awkward_as_promised() -> None:
    assert len(set(TEXTS)) >= 40 and len(PAIRS) >= 6
