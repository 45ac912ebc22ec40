"""Texts are cut, lowered and padded as the base's tokenizer files say, as the files' own libraries read them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.bases import load_transformers
from eptx.exporter.validation.base.source import BaseSource
from eptx.exporter.validation.contents.files.tokenizer import compare_tokenizer
from eptx.runtime import Session
from eptx.runtime.requests.tokenizer import Tokenizer
from tests.exporter.validation.adapters import linear_shapes, write_lora
from tests.exporter.validation.wrong.models import LENGTH, write_base

TEXT = "the film is good and the book is bad one two three four five six seven eight nine ten a b c d e f g " * 4
ROWS: list[Any] = [TEXT, "A Short One", (TEXT, "and a second"), ("a first, and", TEXT), (TEXT, TEXT)]
Write = Callable[[Path], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A tiny BERT of 64 positions, its graph, and an adapter."""
    root = tmp_path_factory.mktemp("text")
    base = write_base("bert", root / "base")
    ir.save(load_transformers(base).model, root / "base.onnx")
    return base, root / "base.onnx", write_lora(root / "lora", linear_shapes(base, ("query",)), seed=1)


def _settings(**values: Any) -> Write:
    def write(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return write


def _own(**values: Any) -> Write:
    """Of tokenizer.json itself."""

    def write(folder: Path) -> None:
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return write


def _sentence(name: str = "sentence_bert_config.json", **values: Any) -> Write:
    return lambda folder: (folder / name).write_text(json.dumps(values)) and None


def _cased(folder: Path) -> None:
    """A tokenizer that does not lower by itself."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(content))


_CUT = {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
_FILL = {
    "strategy": "BatchLongest",
    "direction": "Left",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "[PAD]",
}


def _bundle(made: tuple[Path, Path, Path], folder: Path, *changes: Write) -> tuple[Path, Bundle]:
    base = folder / "base"
    shutil.copytree(made[0], base)
    for change in changes:
        change(base)
    options = ExportOptions(mode="static", base_onnx=made[1])
    return base, export_bundle(base, [made[2]], folder / "bundle", options)


@pytest.mark.parametrize(
    ("changes", "cut"),
    [
        ([], LENGTH),
        ([_settings(model_max_length=12)], 12),
        ([_settings(model_max_length=512)], LENGTH),
        ([_settings(model_max_length=10**30)], LENGTH),
        ([_settings(model_max_length=12, truncation_side="left")], 12),
        ([_settings(truncation_side="left", padding_side="left")], LENGTH),
        ([_settings(pad_token="[MASK]")], LENGTH),
        ([_own(truncation=_CUT, padding=_FILL)], LENGTH),
        ([_own(truncation=_CUT, padding=_FILL), _settings(truncation_side="right", padding_side="right")], LENGTH),
    ],
)
def test_as_transformers(made: tuple[Path, Path, Path], tmp_path: Path, changes: list[Write], cut: int) -> None:
    base, bundle = _bundle(made, tmp_path, *changes)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.model_max_length = min(tokenizer.model_max_length, LENGTH)  # the model reads no more
    served = Tokenizer(bundle)
    for row in ROWS:
        wanted = tokenizer(*([row] if isinstance(row, str) else row), truncation=True)
        assert served([row])["input_ids"][0].tolist() == wanted["input_ids"]
    assert bundle.manifest.text is not None
    assert bundle.manifest.text.max_length == cut
    texts = ["a", TEXT]
    wanted = tokenizer(texts, truncation=True, padding=True, return_tensors="np")
    for name in ("input_ids", "attention_mask"):
        np.testing.assert_array_equal(served(texts)[name], wanted[name], name)
    assert not [check for check in compare_tokenizer(bundle, BaseSource(base), LENGTH) if check.wrong]


@pytest.mark.parametrize(
    ("changes", "cut"),
    [
        ([_sentence(max_seq_length=12, do_lower_case=False)], 12),
        ([_sentence(max_seq_length=12), _settings(model_max_length=32)], 12),
        ([_sentence(max_seq_length=32), _settings(model_max_length=12)], 32),  # the wider one counts there too
        ([_sentence(max_seq_length=512), _settings(model_max_length=12)], LENGTH),
        ([_sentence(max_seq_length=None), _settings(model_max_length=12)], 12),
        ([_sentence("sentence_roberta_config.json", max_seq_length=9)], 9),
    ],
)
def test_as_sentence_transformers(
    made: tuple[Path, Path, Path], tmp_path: Path, changes: list[Write], cut: int
) -> None:
    """`max_seq_length` is what its `Transformer` module gives the tokenizer as `model_max_length`."""
    base, bundle = _bundle(made, tmp_path, *changes)
    tokenizer = AutoTokenizer.from_pretrained(base, model_max_length=cut)
    for row in ROWS:
        wanted = tokenizer(*([row] if isinstance(row, str) else row), truncation=True)
        assert Tokenizer(bundle)([row])["input_ids"][0].tolist() == wanted["input_ids"]
    assert not [check for check in compare_tokenizer(bundle, BaseSource(base), LENGTH) if check.wrong]


def test_sentence_transformers_lowers(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, bundle = _bundle(made, tmp_path, _cased, _sentence(max_seq_length=12, do_lower_case=True))
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert tokenizer("The FILM")["input_ids"] != tokenizer("the film")["input_ids"]
    assert Tokenizer(bundle)("The FILM")["input_ids"][0].tolist() == tokenizer("the film")["input_ids"]
    assert not [check for check in compare_tokenizer(bundle, BaseSource(base), LENGTH) if check.wrong]


def test_an_answer_is_the_cut_texts(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """The issue's case: 64 positions, a tokenizer of 12 tokens."""
    base, bundle = _bundle(made, tmp_path, _settings(model_max_length=12))
    tokenizer = AutoTokenizer.from_pretrained(base)
    session = Session(bundle)
    by_text = session.run(TEXT)
    by_array = session.run(dict(tokenizer([TEXT], truncation=True, return_tensors="np")))
    name = session.outputs[0].name
    np.testing.assert_array_equal(by_text[name], by_array[name])
    assert (
        len(session.run({"input_ids": [[5] * LENGTH], "attention_mask": [[1] * LENGTH]})[name]) == 1
    )  # arrays may be longer
    assert torch.isfinite(
        AutoModel.from_pretrained(base)(**tokenizer([TEXT], truncation=True, return_tensors="pt"))[0]
    ).all()


@pytest.mark.parametrize(
    ("field", "value"), [("max_length", 32), ("truncation_side", "left"), ("padding_side", "left"), ("pad", 4)]
)
def test_the_judge_reads_the_manifest(made: tuple[Path, Path, Path], tmp_path: Path, field: str, value: Any) -> None:
    from dataclasses import replace

    base, bundle = _bundle(made, tmp_path)
    assert bundle.manifest.text is not None
    wrong = replace(bundle.manifest, text=replace(bundle.manifest.text, **{field: value}))
    checks = compare_tokenizer(replace(bundle, manifest=wrong), BaseSource(base), LENGTH)
    assert [check.name for check in checks if check.wrong] == ["eptx.json: text", "tokenizer: ids"]
