"""Which tokenizer a bundle has: the adapter's where its trainer saved one, as PEFT's users load it, else the base's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eptx._one_line import one_line
from eptx.errors import BaseModelError, EptxError, UsageError
from eptx.exporter.quiet import quiet
from eptx.files.strict_json import parse_json
from eptx.progress import note

TOKENIZER = "tokenizer.json"
#: The files of which one makes a folder that of a tokenizer.
_WORDS = (
    TOKENIZER,
    "vocab.txt",
    "vocab.json",
    "spm.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
#: What a tokenizer is made of, as transformers names it.
FILES = (
    *_WORDS,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
#: What decides, besides the rules in its file, how a tokenizer reads a row.
_SETTINGS = (
    "padding_side",
    "truncation_side",
    "model_max_length",
    "special_tokens_map",
    "pad_token_type_id",
    "model_input_names",
    "clean_up_tokenization_spaces",
    "chat_template",
)


def tokenizer_files(base: Mapping[str, Path], adapters: Sequence[Path], workspace: Path) -> dict[str, Path]:
    """The files of a bundle's tokenizer, by name.

    Args:
        base: those of the base.
        adapters: the adapter's folders.
        workspace: an empty folder that lives until the files are copied.

    Returns:
        the files, with a ``tokenizer.json`` wherever transformers can make one; {} where nothing has a tokenizer.

    Raises:
        UsageError: the adapters were trained with different tokenizers.
        BaseModelError: a tokenizer cannot be read.
    """
    saved = [folder for folder in adapters if any((folder / name).is_file() for name in _WORDS)]
    if not saved:
        return _with_rules(dict(base), workspace)
    tokenizers = [_load(folder) for folder in saved]
    for folder, tokenizer in zip(saved[1:], tokenizers[1:], strict=True):
        other = _difference(tokenizers[0], tokenizer)
        if other is not None:
            raise UsageError(
                f"{saved[0]} and {folder} were saved with different tokenizers ({other}), and a bundle has one: "
                "export each by itself"
            )
    if not any(name in base for name in _WORDS):
        note(f"the tokenizer is the one in {saved[0].name}; the base has none")
    elif (other := _difference(_load(next(iter(base.values())).parent), tokenizers[0])) is not None:
        note(f"the tokenizer is the one in {saved[0].name}, which differs from the base's ({other})")
    return _with_rules({name: saved[0] / name for name in FILES if (saved[0] / name).is_file()}, workspace)


def _with_rules(files: dict[str, Path], workspace: Path) -> dict[str, Path]:
    """The same with a ``tokenizer.json``, which transformers makes of older files."""
    if TOKENIZER in files or not any(name in files for name in _WORDS):
        return files
    tokenizer = _load(next(iter(files.values())).parent)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return files  # it is written in Python: the bundle is given token ids
    path = workspace / TOKENIZER
    backend.save(str(path))
    return {**files, TOKENIZER: path}


def _load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    with quiet():
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except EptxError:
            raise
        except Exception as error:  # whatever its files provoke
            raise BaseModelError(f"{folder.name}: its tokenizer cannot be read: {one_line(error)}") from None


def _difference(one: Any, other: Any) -> str | None:
    """What differs between two tokenizers, but not how a training script cut and padded."""
    rules, others = (_rules(tokenizer) for tokenizer in (one, other))
    for part in sorted({*rules, *others}):
        if rules.get(part) != others.get(part):
            return part
    return next((name for name in _SETTINGS if getattr(one, name, None) != getattr(other, name, None)), None)


def _rules(tokenizer: Any) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return {"words": tokenizer.get_vocab()}
    rules = parse_json(backend.to_str().encode(), what=TOKENIZER, error=BaseModelError)
    return {key: value for key, value in rules.items() if key not in ("version", "truncation", "padding")}
