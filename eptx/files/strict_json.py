"""Strict JSON: it refuses what the ``json`` module accepts and a file format must not.

Refused on reading: duplicate keys, NaN and infinities (also as 1e999), integers past Python's digit limit,
nesting that exhausts the stack, lone surrogates, bytes that are not UTF-8, files larger than a limit. Written
JSON is the same bytes for the same value.
"""

from __future__ import annotations

import codecs
import json
import math
from pathlib import Path
from typing import Any, NoReturn

from eptx.errors import EptxError
from eptx.files.safe_files import read_bytes

JSON_LIMIT = 16 << 20


def parse_json(data: bytes, *, what: str, error: type[EptxError]) -> Any:
    """The value of a JSON text.

    Args:
        data: UTF-8 bytes. A byte order mark before them is ignored, as RFC 8259 allows.
        what: the name of the text, usually of its file; errors begin with it.
        error: the class to raise when the text is not strict JSON.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:2]:
        raise error(f"{what}: UTF-16 text; save it as UTF-8")
    try:
        value = _DECODER.decode(data.removeprefix(codecs.BOM_UTF8).decode("utf-8"))
        # "\ud800" parses, and only fails where the string is printed or used as a file name
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise error(f"{what}: a string holds half of a surrogate pair") from None
    except UnicodeDecodeError:
        raise error(f"{what}: not UTF-8 text") from None
    except RecursionError:
        raise error(f"{what}: nested too deeply") from None
    except ValueError as e:
        raise error(f"{what}: not valid JSON: {e}") from None
    return value


def read_json(path: Path, *, error: type[EptxError], limit: int = JSON_LIMIT) -> Any:
    """The value of a JSON file of at most ``limit`` bytes; ``error`` names the file."""
    return parse_json(read_bytes(path, error=error, limit=limit), what=path.name, error=error)


def read_json_object(path: Path, *, error: type[EptxError], limit: int = JSON_LIMIT) -> dict[str, Any]:
    """Like `read_json`, for a file that must hold an object."""
    value = read_json(path, error=error, limit=limit)
    if not isinstance(value, dict):
        raise error(f"{path.name}: must hold a JSON object")
    return value


def dump_json(value: Any) -> bytes:
    """The bytes that eptx writes for a value: keys sorted, indent 1, UTF-8, a newline at the end.

    Raises:
        ValueError: a float is NaN or infinite.
    """
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {_short(twice)} appears twice")
    return result


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {_short(text)} is out of range")
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


#: Made once, because that takes longer than reading a small request.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
