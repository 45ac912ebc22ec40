"""A safetensors file of one object and some arrays, read with numpy alone.

The library of the format needs no PyTorch either, but it is one more thing to install on a device, and a proof is the
only such file that is read there. The digest is of all that follows the header, and of the object.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eptx.errors import DataError
from eptx.files.publish import os_error, replace_file
from eptx.files.safe_files import read_bytes
from eptx.files.strict_json import dump_json, parse_json

_LIMIT = 256 << 20
_HEADER = 8
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
_NAMES = {np.dtype(dtype): name for name, dtype in _TYPES.items()}
_METADATA, _OBJECT, _DIGEST = "__metadata__", "eptx_proof", "sha256"


def write_tensors(path: Path, content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> int:
    """Writes a file; its bytes are the same for the same content. Returns how many they are.

    Raises:
        UsageError: it cannot be written.
        LimitError: the disk is full.
    """
    data, header, end = bytearray(), {}, 0
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        dtype = _NAMES[array.dtype]
        data += array.astype(_TYPES[dtype], copy=False).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [end, len(data)]}
        end = len(data)
    text = dump_json(content)
    names = dump_json({_METADATA: {_OBJECT: text.decode(), _DIGEST: _digest(text, data)}, **header})
    names += b" " * (-len(names) % _HEADER)
    whole = len(names).to_bytes(_HEADER, "little") + names + bytes(data)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_error(path, error) from None
    replace_file(path, whole)
    return len(whole)


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The object and the arrays of a file.

    Raises:
        DataError: it is no such file, or damaged.
    """
    data = read_bytes(path, error=DataError, limit=_LIMIT)
    size = int.from_bytes(data[:_HEADER], "little")
    if len(data) < _HEADER or size > len(data) - _HEADER:
        raise DataError(f"{path.name}: not a proof: it is no safetensors file")
    header = parse_json(data[_HEADER : _HEADER + size], what=path.name, error=DataError)
    metadata = header.pop(_METADATA, None) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_OBJECT), str):
        raise DataError(f"{path.name}: not a proof of eptx; write one with eptx validate BUNDLE --record FILE")
    rest, text = memoryview(data)[_HEADER + size :], metadata[_OBJECT].encode()
    if metadata.get(_DIGEST) != _digest(text, rest):
        raise DataError(f"{path.name}: damaged: its digest is another; copy it again")
    content = parse_json(text, what=path.name, error=DataError)
    if not isinstance(content, dict):
        raise DataError(f"{path.name}: damaged: must hold a JSON object")
    return content, {name: _array(path, name, entry, rest) for name, entry in header.items()}


def _array(path: Path, name: str, entry: Any, data: memoryview) -> np.ndarray:
    try:
        dtype, shape, (start, end) = np.dtype(_TYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
        sizes = all(type(number) is int and number >= 0 for number in (*shape, start, end))
        if not sizes or end > len(data) or end - start != math.prod(shape) * dtype.itemsize:
            raise ValueError
        return np.frombuffer(data[start:end], dtype).reshape(shape)
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path.name}: damaged: no tensor can be read for {name[:60]!r}") from None


def _digest(text: bytes, data: bytes | bytearray | memoryview) -> str:
    digest = hashlib.sha256(text)
    digest.update(data)
    return digest.hexdigest()
