"""The base's folder as transformers reads it: the source of a bundle's manifest and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import normalizers

from eptx._one_line import one_line
from eptx.errors import BaseModelError
from eptx.exporter.bases.weights.config import base_config
from eptx.exporter.quiet import quiet
from eptx.files.strict_json import read_json_object

#: A folder without these has no tokenizer, although transformers would invent one from the configuration alone.
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spm.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)


#: The settings of sentence-transformers beside a tokenizer; the first of these files counts.
SENTENCE_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)


@dataclass(frozen=True)
class BaseSource:
    """A base's transformers folder.

    Attributes:
        folder: where it is.
        home: where the tokenizer is that training used: the adapter's folder, if it has one; None: the base's.
    """

    folder: Path
    home: Path | None = None

    def places(self, name: str) -> list[Path]:
        """The files of that name that a bundle may have: of the tokenizer's folder, and of the base's."""
        folders = [self.folder] if self.home is None else [self.home, self.folder]
        return [folder / name for folder in folders if (folder / name).is_file()]

    @cached_property
    def written(self) -> dict[str, Any]:
        """``config.json`` as the file has it.

        Raises:
            BaseModelError: it is missing or damaged.
        """
        return read_json_object(self.folder / "config.json", error=BaseModelError)

    @cached_property
    def config(self) -> Any:
        """``config.json`` as transformers completes it."""
        with quiet():
            return base_config(self.folder)

    @cached_property
    def text_config(self) -> Any:
        """The text model's part of it; all of it, if there is only a text model."""
        return self.config.get_text_config()

    @cached_property
    def generation(self) -> Any:
        """The ``GenerationConfig`` that ``generate`` would use."""
        from transformers import GenerationConfig

        with quiet():
            if (self.folder / "generation_config.json").is_file():
                return GenerationConfig.from_pretrained(self.folder, local_files_only=True)
            return GenerationConfig.from_model_config(self.config)

    @cached_property
    def tokenizer(self) -> Any:
        """transformers' tokenizer that training used; None without a file of one."""
        return load_tokenizer(self.home or self.folder, self.folder)

    def token(self, name: str) -> Any:
        """A special token's id (or ids), as ``generate`` finds it: in the generation settings, or the model's."""
        for place in (self.generation, self.config, self.text_config):
            value = getattr(place, name, None)
            if value is not None:
                return value
        return None


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def load_tokenizer(folder: Path, sentences: Path | None = None) -> Any:
    """transformers' tokenizer of a folder; None without a file of one.

    Args:
        folder: of the tokenizer.
        sentences: where the settings of sentence-transformers are; None: there too.

    Raises:
        BaseModelError: transformers cannot read it.
    """
    if not has_tokenizer(folder):
        return None
    from transformers import AutoTokenizer

    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as e:  # damaged files raise any class
            raise BaseModelError(f"{folder.name}: its tokenizer cannot be read: {one_line(e)}") from None
    for name in SENTENCE_FILES:
        settings = (sentences or folder) / name
        if settings.is_file():
            _as_sentences(tokenizer, read_json_object(settings, error=BaseModelError))
            break
    return tokenizer


def _as_sentences(tokenizer: Any, settings: Mapping[str, Any]) -> None:
    """Applies the settings of sentence-transformers: its length counts, and it may lower texts."""
    if settings.get("max_seq_length"):
        tokenizer.model_max_length = settings["max_seq_length"]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if settings.get("do_lower_case") and backend is not None:
        steps = backend.normalizer
        own: Any = steps if isinstance(steps, normalizers.Sequence) else [] if steps is None else [steps]
        if not any(isinstance(step, normalizers.Lowercase) for step in own):
            backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])


def listed(value: Any) -> tuple[int, ...]:
    """A configuration's token ids, given as one number, as a list, or not at all."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (int(value),)


def same(found: Any, wanted: Any) -> bool:
    """Whether two JSON values are equal. 1 equals 1.0, but not true."""
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        return found.keys() == wanted.keys() and all(same(found[key], wanted[key]) for key in found)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return bool(found == wanted)
