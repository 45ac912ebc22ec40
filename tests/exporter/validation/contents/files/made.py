"""Bases with all that can lie beside a model, bundles of them, and copies of bundles in which one thing is changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from eptx.bundle import Bundle, read_bundle
from eptx.errors import BundleError
from eptx.exporter.validation.contents.files import ExpectedTask, compare_files
from eptx.files.safe_files import hash_file
from eptx.manifest.names import BASE_TASK
from eptx.runtime.validation.check import Check
from tests.support.bundles import copy_bundle

Change = Callable[[Path], None]
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@dataclass
class Made:
    """A bundle with what it was made from.

    Attributes:
        bundle: as it was exported.
        base: the transformers folder.
        tasks: what was trained.
        auto: the class that loads the base.
    """

    bundle: Bundle
    base: Path
    tasks: Sequence[ExpectedTask]
    auto: str
    _model: Any = field(default=None, repr=False)

    @property
    def off(self) -> Sequence[ExpectedTask]:
        """The task `base`, which heads of the tasks leave out."""
        return [] if any(task.labels is not None for task in self.tasks) else [ExpectedTask(BASE_TASK, None, None)]

    @property
    def model(self) -> Any:
        """The base as transformers loads it."""
        if self._model is None:
            self._model = getattr(transformers, self.auto).from_pretrained(self.base)
        return self._model

    def checks(self, bundle: Bundle | None = None) -> list[Check]:
        """What the comparison says of a bundle."""
        return compare_files(bundle or self.bundle, self.base, self.model, self.tasks, off=self.off)

    def wrong(self, bundle: Bundle | None = None) -> dict[str, str]:
        """Part -> what is wrong with it."""
        return {check.name: check.wrong for check in self.checks(bundle) if check.wrong is not None}


def damaged(bundle: Bundle, out: Path, *changes: Change) -> Bundle:
    """A copy in which something is changed, listed with its new size and SHA-256 as a forger would."""
    folder = copy_bundle(bundle.path, out)
    for change in changes:
        change(folder)
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != "eptx.json"]
    entries = {}
    for name in names:
        size, digest = hash_file(folder / name, error=BundleError)
        entries[name] = {"size": size, "sha256": digest}
    _edit(folder / "eptx.json", lambda manifest: manifest.update(files=entries))
    return read_bundle(folder)


def edit(name: str, change: Callable[[dict[str, Any]], object]) -> Change:
    """Changes a JSON file."""
    return lambda folder: _edit(folder / name, change)


def put(name: str, keys: str, value: Any) -> Change:
    """Sets one field, by the path to it."""

    def change(content: dict[str, Any]) -> None:
        *parents, last = keys.split(".")
        for key in parents:
            content = content[key]
        content[last] = value

    return edit(name, change)


def remove(name: str) -> Change:
    """Takes a file away."""
    return lambda folder: (folder / name).unlink()


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def write_wordpieces(folder: Path, size: int, **settings: Any) -> None:
    """An uncased tokenizer as BERT's: pieces of one letter, some words, special tokens around a text."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"{mark}{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-" for mark in ("", "##")]
    words += ["the", "word", "one", "two", "three", "four", "five", "is", "##ing", "first", "second", "and", "true"]
    vocabulary = {word: i for i, word in enumerate(words)}
    assert len(vocabulary) <= size
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **settings,
    )
    fast.save_pretrained(folder)
