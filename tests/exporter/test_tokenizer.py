"""The tokenizer of a bundle: the adapter's before the base's, and older files made into a tokenizer.json.

What is right is what transformers' own tokenizer of the trainer's folder gives.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.errors import UsageError
from eptx.exporter import ExportOptions
from eptx.exporter.validation.base.source import BaseSource
from eptx.exporter.validation.contents.files.copied import compare_copied_files
from eptx.exporter.validation.contents.files.hard_texts import TEXTS
from eptx.exporter.validation.contents.files.tokenizer import compare_tokenizer
from eptx.runtime.requests.tokenizer import Tokenizer
from tests.exporter.trained.models import peft_model, save, write_base

LENGTH = 16
_WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{c}" for c in "abcdeinorst"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base without a tokenizer, and an adapter on it."""
    root = tmp_path_factory.mktemp("tokenizers")
    base = write_base("bert", "BertModel", root / "base")
    model = peft_model(base, "BertModel", target_modules=["query"], task_type="FEATURE_EXTRACTION")
    return base, save(model, root / "adapter")


def _folder(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def _write(folder: Path, *more: str, **settings: Any) -> Path:
    """A fast tokenizer with further words."""
    words = {word: index for index, word in enumerate([*_WORDS, *more])}
    rules = Library(models.WordPiece(words, unk_token="[UNK]"))
    rules.normalizer = normalizers.BertNormalizer(lowercase=True)
    rules.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rules.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    PreTrainedTokenizerFast(tokenizer_object=rules, **names, **settings).save_pretrained(folder)
    return folder


def _as_transformers(bundle: Bundle, trained: Path, base: Path) -> None:
    """Every hard text has the ids of the trainer's tokenizer, and the judge agrees."""
    wanted = AutoTokenizer.from_pretrained(trained)
    served = Tokenizer(bundle)
    for text in TEXTS:
        assert list(served.encode([text])[0]) == wanted(text, truncation=True, max_length=LENGTH)["input_ids"], text
    source = BaseSource(base, trained if trained != base else None)
    checks = [*compare_tokenizer(bundle, source, LENGTH), *compare_copied_files(bundle, source)]
    assert [check for check in checks if check.wrong] == []


@pytest.mark.parametrize("in_base", [False, True])
def test_the_adapters_tokenizer_counts(made: tuple[Path, Path], tmp_path: Path, in_base: bool) -> None:
    base, adapter = (
        _folder(made[0], tmp_path / "base"),
        _write(_folder(made[1], tmp_path / "adapter"), "plain", "##sen"),
    )
    if in_base:
        _write(base)
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", ExportOptions(mode="static"))
    _as_transformers(bundle, adapter, base)
    if in_base:  # with the base's tokenizer as what was trained with, the judge finds the difference
        wrong = [check.name for check in compare_tokenizer(bundle, BaseSource(base), LENGTH) if check.wrong]
        assert "tokenizer: ids" in wrong


def test_adapters_with_different_tokenizers(made: tuple[Path, Path], tmp_path: Path) -> None:
    one, other, same = (_folder(made[1], tmp_path / name) for name in ("one", "other", "same"))
    _write(one), _write(same), _write(other, "plain")
    options = ExportOptions(mode="conditioned")
    with pytest.raises(UsageError, match=r"were saved with different tokenizers .*: export each by itself"):
        export_bundle(made[0], [one, other], tmp_path / "bundle", options)
    assert not (tmp_path / "bundle").exists()
    _as_transformers(export_bundle(made[0], [one, same], tmp_path / "bundle", options), one, made[0])


def _vocab_txt(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(_WORDS))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )


def _merges(folder: Path) -> None:
    bytes_ = list(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(bytes_), "th", "the", "in"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\ni n\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer"}))


@pytest.mark.parametrize("older", [_vocab_txt, _merges])
@pytest.mark.parametrize("place", ["base", "adapter"])
def test_older_files(made: tuple[Path, Path], tmp_path: Path, older: Any, place: str) -> None:
    base, adapter = _folder(made[0], tmp_path / "base"), _folder(made[1], tmp_path / "adapter")
    older(tmp_path / place)
    bundle = export_bundle(base, [adapter], tmp_path / "bundle", ExportOptions(mode="static"))
    assert bundle.file("tokenizer.json") is not None
    _as_transformers(bundle, tmp_path / place, base)
