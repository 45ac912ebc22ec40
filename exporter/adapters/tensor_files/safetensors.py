"""Reading safetensors files strictly.

The safetensors library checks offsets and sizes; it accepts duplicate names, NaN and any name at all. An adapter
comes from strangers, so the header is read once more here and the values are looked at.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - makes bfloat16 a type of NumPy's
import numpy as np
from safetensors import SafetensorError, safe_open

from eptx.errors import AdapterError, EptxError, LimitError
from eptx.files.safe_files import open_regular
from eptx.files.strict_json import parse_json

#: What to do about a damaged file.
COPY = "copy or download it again (a file of some 130 bytes is Git LFS's pointer: run `git lfs pull`)"
_HEADER_LIMIT = 100 << 20
FILE_LIMIT = 16 << 30
_FLOATS = {"F64", "F32", "F16", "BF16"}
_NARROW = {"F16", "BF16"}
_INTEGERS = {"I64", "I32", "I16", "U8"}


def read_tensors(path: Path, *, error: type[EptxError] = AdapterError, integers: bool = False) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as arrays, in the file's order.

    Args:
        path: the file.
        error: the class to raise.
        integers: whether tensors may be indices.

    Returns:
        name -> array: float32 (float64 where stored so), or an integer type as stored.

    Raises:
        EptxError: (of class `error`) not a regular file, truncated, a header with duplicate or odd names, tensors that
            are not floating point, NaN or infinite values.
        LimitError: the file is larger than any adapter's.
    """
    header = _read_header(path, error)
    for name, entry in header.items():
        _check_entry(path, name, entry, error, _FLOATS | _INTEGERS if integers else _FLOATS)
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in header}
    except (SafetensorError, OSError, ValueError) as e:
        raise error(f"{path.name}: damaged safetensors file: {e}: {COPY}") from None
    narrow = {name for name in header if header[name]["dtype"] in _NARROW}
    arrays = {name: array.astype(np.float32) if name in narrow else array for name, array in tensors.items()}
    return {name: finite(path, name, array, error) for name, array in arrays.items()}


def array_of(path: Path, name: str, tensor: Any, error: type[EptxError]) -> np.ndarray:
    """A tensor of PyTorch as an array, float32 unless it is float64 or of integers.

    Raises:
        EptxError: (of class `error`) it holds NaN or infinite values.
    """
    narrow = tensor.is_floating_point() and tensor.dtype.itemsize < 8
    return finite(path, name, tensor.float().numpy() if narrow else tensor.numpy(), error)


def finite(path: Path, name: str, array: np.ndarray, error: type[EptxError]) -> np.ndarray:
    """The array; raises EptxError (of class `error`) if it holds NaN or infinite values."""
    if not np.isfinite(array).all():
        raise error(f"{path.name}: tensor {name} holds NaN or infinite values: take a checkpoint from before")
    return array


def check_name(path: Path, name: str, error: type[EptxError]) -> None:
    """Raises EptxError (of class `error`) for a name that no parameter has."""
    if not name.isprintable() or not name.isascii() or "/" in name or "\\" in name:
        raise error(f"{path.name}: {json.dumps(name)[:80]} is not a parameter's name")


def _read_header(path: Path, error: type[EptxError]) -> dict[str, Any]:
    with open_regular(path, error=error) as file:
        size = os.fstat(file.fileno()).st_size
        if size > FILE_LIMIT:
            raise LimitError(f"{path.name}: larger than {FILE_LIMIT >> 30} GiB, which no adapter is")
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else None
        if length is None or length > min(_HEADER_LIMIT, size - 8):
            raise error(f"{path.name}: truncated or not a safetensors file ({size} bytes): {COPY}")
        header = parse_json(file.read(length), what=f"{path.name}: header", error=error)
    if not isinstance(header, dict):
        raise error(f"{path.name}: header is not a JSON object")
    header.pop("__metadata__", None)
    return dict(sorted(header.items(), key=lambda item: _begin(item[1])))


def _begin(entry: Any) -> int:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    return offsets[0] if isinstance(offsets, list) and offsets and isinstance(offsets[0], int) else 0


def _check_entry(path: Path, name: str, entry: Any, error: type[EptxError], types: set[str]) -> None:
    check_name(path, name, error)
    dtype = entry.get("dtype") if isinstance(entry, dict) else None
    if not isinstance(dtype, str) or dtype not in types:
        raise error(f"{path.name}: tensor {name} has type {str(dtype)[:20]}; an adapter's tensors are floating point")
