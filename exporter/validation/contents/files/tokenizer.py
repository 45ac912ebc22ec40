"""The tokenizer of a bundle, compared with transformers' tokenizer of the base: rules, settings, ids of hard texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Library

from eptx._one_line import one_line
from eptx.bundle import Bundle
from eptx.errors import BundleError, EptxError, NotSupportedError, RequestError
from eptx.exporter.validation.base.source import BaseSource, load_tokenizer, same
from eptx.exporter.validation.base.tokenizer import BaseTokenizer, Row
from eptx.exporter.validation.contents.files.copied import alone, equal
from eptx.exporter.validation.contents.files.hard_texts import PAIRS, TEXTS
from eptx.files.safe_files import read_bytes
from eptx.files.strict_json import parse_json, read_json_object
from eptx.runtime.requests.tokenizer import Tokenizer
from eptx.runtime.validation.check import Check

_FILE, _SETTINGS, _TEXT, _IDS = "tokenizer.json", "tokenizer_config.json", "eptx.json: text", "tokenizer: ids"
_LIMIT = 256 << 20
#: Settings of ``tokenizer_config.json`` that change how transformers tokenizes a text or a batch.
_MATTERS = (
    "special_tokens_map",
    "padding_side",
    "truncation_side",
    "pad_token_type_id",
    "model_input_names",
    "clean_up_tokenization_spaces",
)


def compare_tokenizer(bundle: Bundle, source: BaseSource, length: int | None) -> list[Check]:
    """Compares the tokenizer's files, and the runtime's tokenizer, with the base's.

    Args:
        bundle: the bundle.
        source: its base.
        length: how many tokens the base reads; None without a limit.

    Raises:
        BundleError, BaseModelError: a tokenizer cannot be read.
    """
    if alone(bundle):
        return []  # `compare_copied_files` reports it
    base, path = source.tokenizer, bundle.file(_FILE)
    if base is None:
        files = [name for name in (_FILE, _SETTINGS) if bundle.file(name) and not source.places(name)]
        return [Check(name, "compared", "is not of the base, which has no tokenizer") for name in files]
    if path is None:
        if source.places(_FILE) or hasattr(base, "backend_tokenizer"):
            return [Check(_FILE, "compared", "is missing; the base has it, or transformers makes it of its files")]
        return [Check(_FILE, "unchecked", why="the base has none, so the bundle is given token ids, not texts")]
    return [
        Check(_FILE, "compared", _wrong_file(path, source)),
        Check(_SETTINGS, "compared", _wrong_settings(bundle, source, length)),
        Check(_TEXT, "compared", _wrong_text(bundle, source, length)),
        Check(_IDS, "compared", _wrong_ids(bundle, source, length)),
    ]


def _wrong_file(path: Path, source: BaseSource) -> str | None:
    """How a tokenizer file differs; other bytes may hold the same rules, in which the library writes both."""
    wanted = (source.home or source.folder) / _FILE
    if wanted.is_file() and equal(path, wanted):
        return None
    found = _rules(_read(path))
    theirs = [_rules(source.tokenizer.backend_tokenizer)] if hasattr(source.tokenizer, "backend_tokenizer") else []
    theirs += [_rules(_read(wanted))] if wanted.is_file() else []
    wrong = [_difference(found, other) for other in theirs]
    return None if None in wrong else wrong[0] if wrong else "is there; transformers makes no such file for the base"


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    for part in sorted({*found, *wanted}):
        if same(found.get(part), wanted.get(part)):
            continue
        mine, theirs = (rules.get(part) for rules in (found, wanted))
        if part == "model" and isinstance(mine, dict) and isinstance(theirs, dict):
            kinds = [key for key in sorted({*mine, *theirs}) if not same(mine.get(key), theirs.get(key))]
            token = _first(mine.get(kinds[0]), theirs.get(kinds[0]))
            return f"its {part} has another {kinds[0]}{token} than the base's"
        return f"its {part} is not the base's"
    return None


def _first(found: Any, wanted: Any) -> str:
    """The first token that differs between two vocabularies."""
    if not isinstance(found, dict) or not isinstance(wanted, dict):
        return ""
    name = min(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    return f" ({name!r} is {found.get(name, 'not there')}, not {wanted.get(name, 'there')})"


def _read(path: Path) -> Any:
    try:
        return Library.from_buffer(read_bytes(path, error=BundleError, limit=_LIMIT))
    except EptxError:
        raise
    except Exception as e:
        raise BundleError(f"{path.name}: not a tokenizer: {one_line(e)}") from None


def _rules(tokenizer: Any) -> dict[str, Any]:
    """A tokenizer's rules, without truncation and padding, which are settings of the training script."""
    rules = parse_json(tokenizer.to_str().encode(), what=_FILE, error=BundleError)
    return {key: value for key, value in rules.items() if key not in ("version", "truncation", "padding")}


def _wrong_settings(bundle: Bundle, source: BaseSource, length: int | None) -> str | None:
    """How the settings differ, as transformers reads them; their text may be another."""
    path, wanted = bundle.file(_SETTINGS), (source.home or source.folder) / _SETTINGS
    if path is None:
        return "is missing; the base has it" if wanted.is_file() else None
    if wanted.is_file() and equal(path, wanted):
        return None
    limit = read_json_object(path, error=BundleError).get("model_max_length")
    if limit is not None and limit not in (length, source.tokenizer.model_max_length):
        return f"model_max_length is {limit}; the base's is {source.tokenizer.model_max_length}"
    found = load_tokenizer(bundle.path)
    for name in _MATTERS:
        mine, theirs = getattr(found, name, None), getattr(source.tokenizer, name, None)
        if mine != theirs:
            return f"{name} is {mine!r}; the base's is {theirs!r}"
    rows: list[Row] = [*TEXTS, *PAIRS]
    for row in rows:
        mine, theirs = (BaseTokenizer(it, None, cut=False).encode([row]) for it in (found, source.tokenizer))
        if mine != theirs:
            return f"transformers reads {_shown(row)} otherwise than with the base's"
    return None


def _wrong_text(bundle: Bundle, source: BaseSource, length: int | None) -> str | None:
    """How the manifest's settings for other tokenizers differ; the ids show whether texts are lowered."""
    text, tokenizer = bundle.manifest.text, source.tokenizer
    if text is None:
        return "is missing; the base has a tokenizer"
    wanted = {
        "max_length": BaseTokenizer(tokenizer, length, cut=bundle.manifest.generation is None).length,
        "truncation_side": tokenizer.truncation_side,
        "padding_side": tokenizer.padding_side,
        "pad": tokenizer.pad_token_id,
    }
    for name, value in wanted.items():
        if getattr(text, name) != value and not (name == "pad" and value is None):
            return f"{name} is {getattr(text, name)!r}; the base's is {value!r}"
    return None


def _wrong_ids(bundle: Bundle, source: BaseSource, length: int | None) -> str | None:
    """How the runtime's ids differ from those of transformers."""
    generates = bundle.manifest.generation is not None
    base = BaseTokenizer(source.tokenizer, length, cut=not generates)
    try:
        served = Tokenizer(bundle)
    except NotSupportedError as e:
        raise BundleError(str(e)) from None
    texts = [*TEXTS, *_long(base.length), *_own_words(source.tokenizer, base.length)]
    for special in (True, False):
        encode = partial(served.encode, special=special)
        wrong = _first_wrong(encode, texts, base.encode(texts, special=special)["input_ids"])
        if wrong is not None:
            return wrong if special else f"{wrong}, without special tokens"
    return next(_wrong_batches(served, base, bundle, generates), None)


def _first_wrong(encode: Any, texts: Sequence[str], wanted: Sequence[Sequence[int]]) -> str | None:
    for text, ids in zip(texts, wanted, strict=True):
        try:
            found = list(encode([text])[0])
        except RequestError:
            found = []  # the runtime refuses a text without tokens
        if found != list(ids):
            return f"{_shown(text)} gives {_ids(found)}; the base's gives {_ids(ids)}"
    return None


def _wrong_batches(served: Tokenizer, base: BaseTokenizer, bundle: Bundle, generates: bool) -> Iterator[str]:
    """Compares pairs and padded batches; the runtime pads prompts in its own way."""
    encoder = bundle.manifest.encoder
    names = [spec.name for spec in (encoder.inputs if encoder is not None else bundle.manifest.inputs)]
    several: list[list[Row]] = [[pair] for pair in (*PAIRS, *_long_pairs(base.length))]
    if not generates:
        several += [list(PAIRS), ["a", "a longer row of words", "word " * 20]]
    for rows in several:
        wanted, shown = base.arrays(rows, names), f"{_shown(rows[0])}{' and others' if len(rows) > 1 else ''}"
        try:
            found = served(list(rows))
        except RequestError as e:  # the runtime refuses a row without tokens
            if all(len(ids) for ids in base.encode(rows)["input_ids"]):
                yield f"{shown}: {e}"
            continue
        for name in found:
            mine, theirs = np.asarray(found[name]), wanted[name]
            if mine.shape != theirs.shape or not (_kept(mine, wanted, name) == _kept(theirs, wanted, name)).all():
                yield f"{shown}: {name} are not what the base's gives"


def _kept(array: np.ndarray, wanted: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Type ids count only at tokens. Ids count at padding too, since some models number positions by them."""
    return array * wanted["attention_mask"] if name == "token_type_ids" and "attention_mask" in wanted else array


def _long(length: int | None) -> list[str]:
    """A text that is too long for the model."""
    return [] if length is None else ["one two three four five six seven " * (length // 7 + 2)]


def _own_words(tokenizer: Any, length: int | None) -> list[str]:
    """Long texts of the tokenizer's own tokens in turn, so that both ends differ with any vocabulary."""
    if length is None:
        return []
    known, special = len(tokenizer), {*tokenizer.all_special_ids}
    ids = [i % known for i in range(4 * length + len(special)) if i % known not in special]
    return [str(tokenizer.decode(ids)), " ".join(str(tokenizer.decode([i])) for i in ids)]


def _long_pairs(length: int | None) -> list[Row]:
    return [pair for text in _long(length) for pair in ((text, "and a second"), ("a first, and", text))]


def _ids(ids: Sequence[int]) -> str:
    return f"[{', '.join(map(str, ids[:12]))}{', ...' if len(ids) > 12 else ''}]"


def _shown(row: Row) -> str:
    text = ascii(row if isinstance(row, str) else row[0])
    return text if len(text) <= 40 else f"{text[:37]}...'"
