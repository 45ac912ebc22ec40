"""The user's texts are read by the base's tokenizer, whatever the bundle carries."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from eptx.errors import DataError
from eptx.exporter.validation import ValidateOptions
from eptx.exporter.validation.inputs.user_data import from_data, read_texts
from tests.exporter.validation.contents.files.made import Made, damaged, edit, put


def _rows(tmp_path: Path, *texts: str) -> ValidateOptions:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(f'{{"text": "{text}", "task": "sst2", "label": 1}}' for text in texts))
    return ValidateOptions(data=file)


def test_a_bundles_own_tokenizer_and_length_are_not_used(encoder: Made, tmp_path: Path) -> None:
    options = _rows(tmp_path, "the word is true", "word " * 100)
    spoil = edit("tokenizer.json", lambda content: content["normalizer"].update(lowercase=False))
    words = edit("tokenizer.json", lambda c: c["model"]["vocab"].update({"the": 90, "word": 89}))
    bundle = damaged(encoder.bundle, tmp_path / "b", spoil, words, put("eptx.json", "max_length", 8))
    honest, spoilt = (from_data(b, read_texts(options, ["sst2"]), encoder.base, 64) for b in (encoder.bundle, bundle))
    assert [row.arrays["input_ids"].tolist() for row in honest] == [row.arrays["input_ids"].tolist() for row in spoilt]
    assert honest[0].arrays["input_ids"].shape == (2, 64)  # as long as the base reads
    assert honest[0].arrays["input_ids"][0, :6].tolist() == [2, 89, 90, 96, 101, 3]
    assert sorted(honest[0].arrays) == ["attention_mask", "input_ids", "token_type_ids"]


def test_a_base_without_a_tokenizer_reads_no_texts(encoder: Made, tmp_path: Path) -> None:
    base = Path(shutil.copytree(encoder.base, tmp_path / "base"))
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (base / name).unlink()
    with pytest.raises(DataError, match="--data needs a tokenizer, and the base has none"):
        from_data(encoder.bundle, read_texts(_rows(tmp_path, "the"), ["sst2"]), base, 512)
