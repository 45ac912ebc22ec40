"""The files that a bundle has from its base: their bytes, or their JSON values, must be equal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from eptx.bundle import Bundle
from eptx.errors import BaseModelError, BundleError
from eptx.exporter.validation.base.source import SENTENCE_FILES, TOKENIZER_FILES, BaseSource, same
from eptx.files.safe_files import hash_file
from eptx.files.strict_json import read_json
from eptx.runtime.validation.check import Check

#: What transformers reads of a model's folder, besides weights, tokenizer.json and its settings. The exporter has its
#: own list of what it copies. This one stands apart on purpose, since it checks that list.
_FILES = (
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spm.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    *SENTENCE_FILES,
)
#: Files of the bundle alone, and files that are compared elsewhere.
_OWN = (
    "README.md",
    "genai_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)
_MOST_SHOWN = 60
#: How config.json says that weights are stored: a static int4 bundle comes from a folded base in float32.
_STORED = ("dtype", "torch_dtype")


def compare_copied_files(bundle: Bundle, source: BaseSource) -> list[Check]:
    """Compares every file that was copied from the base with the base's.

    Raises:
        BundleError, BaseModelError: a file cannot be read.
    """
    if alone(bundle):
        return [Check("config.json", "unchecked", why="the bundle was made from an ONNX file alone")]
    checks = [
        check
        for name in _FILES
        if (check := _compare(name, bundle.file(name), source.places(name), source)) is not None
    ]
    return checks + [_unknown(name, bundle.path / name, source.folder) for name in _others(bundle)]


def alone(bundle: Bundle) -> bool:
    """Whether a bundle was made from an ONNX file without a folder; then nothing was copied."""
    return not bundle.manifest.sources.base and "config.json" not in bundle.manifest.files


def _compare(name: str, found: Path | None, wanted: Sequence[Path], source: BaseSource) -> Check | None:
    """Compares with the base's file, or of a tokenizer that the adapter brings, with the adapter's."""
    words = name in (*TOKENIZER_FILES, "special_tokens_map.json", "added_tokens.json", "merges.txt")
    if not words:
        wanted = [path for path in wanted if path.parent == source.folder]
    if found is None:
        free = words and source.home is not None  # `compare_tokenizer` shows whether it would make a difference
        return Check(name, "compared", "is missing; the base has it") if wanted and not free else None
    if not wanted:
        return Check(name, "compared", "is not of the base, which has no such file")
    wrong = [difference(found, path) for path in wanted]
    return Check(name, "compared", None if None in wrong else wrong[0])


def equal(found: Path, wanted: Path) -> bool:
    """Whether two files have the same bytes, or hold the same JSON."""
    return difference(found, wanted) is None


def difference(found: Path, wanted: Path) -> str | None:
    """How a file differs: in a JSON object, the first other field; None if it does not."""
    if hash_file(found, error=BundleError) == hash_file(wanted, error=BaseModelError):
        return None
    if found.suffix == ".json":
        mine, theirs = read_json(found, error=BundleError), read_json(wanted, error=BaseModelError)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            return _field(mine, theirs, _STORED if found.name == "config.json" else ())
        if same(mine, theirs):
            return None
    return "is not the base's"


def _field(mine: Mapping[str, Any], theirs: Mapping[str, Any], free: Collection[str]) -> str | None:
    for key in sorted({*mine, *theirs} - {*free}):
        if (key in mine) != (key in theirs) or not same(mine.get(key), theirs.get(key)):
            return f"{key} is {_shown(mine, key)}; the base has {_shown(theirs, key)}"
    return None


def _shown(settings: Mapping[str, Any], key: str) -> str:
    text = repr(settings[key]) if key in settings else "not there"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _others(bundle: Bundle) -> Collection[str]:
    """Listed files, except models and all of the above."""
    models = {name for name in bundle.manifest.files if name.endswith((".onnx", ".onnx.data"))}
    return sorted(set(bundle.manifest.files) - models - {*_FILES, *_OWN})


def _unknown(name: str, path: Path, folder: Path) -> Check:
    if not (folder / name).is_file():
        return Check(name, "unchecked", why="eptx does not read it, and the base has no such file")
    return Check(name, "compared", difference(path, folder / name))
