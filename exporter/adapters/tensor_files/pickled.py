"""Reads the pickles that older versions of PEFT save: ``adapter_model.bin``.

A pickle is a program. torch's ``weights_only`` loader runs only the calls that make tensors, yet that is more than
safetensors can do, so nothing is read here unless the user says so.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from eptx.errors import AdapterError, LimitError
from eptx.exporter.adapters.tensor_files.safetensors import FILE_LIMIT, array_of, check_name
from eptx.exporter.quiet import quiet
from eptx.files.safe_files import open_regular

_AGAIN = "load the adapter with PEFT where it was trained, and save it again"
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.uint8)


def read_pickle(path: Path, *, integers: bool = False) -> dict[str, np.ndarray]:
    """The tensors of a pickle as arrays; see `read_tensors`, whose rules are the same.

    Args:
        path: the file.
        integers: whether tensors may be indices.

    Raises:
        AdapterError: it holds something else than a dictionary of tensors, or numbers that are NaN or infinite.
        LimitError: the file is larger than any adapter's.
    """
    with open_regular(path, error=AdapterError) as file:
        if os.fstat(file.fileno()).st_size > FILE_LIMIT:
            raise LimitError(f"{path.name}: larger than {FILE_LIMIT >> 30} GiB, which no adapter is")
        try:
            with quiet():
                content = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251
        except Exception:  # damaged files raise any class; the loader's own words recommend to switch it off
            raise AdapterError(
                f"{path.name}: torch's weights_only loader refuses it: it is damaged, or holds more than tensors; "
                f"{_AGAIN}"
            ) from None
    if isinstance(content, dict) and len(content) == 1 and isinstance(next(iter(content.values())), dict):
        (content,) = content.values()  # a training script's {"model_state_dict": ...}
    if not isinstance(content, dict):
        raise AdapterError(f"{path.name}: holds no dictionary of tensors; {_AGAIN}")
    arrays = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or type(tensor) is not torch.Tensor or tensor.layout is not torch.strided:
            raise AdapterError(f"{path.name}: holds something else than named tensors; {_AGAIN}")
        check_name(path, name, AdapterError)
        if tensor.dtype not in (*_FLOATS, *(_INTEGERS if integers else ())):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise AdapterError(f"{path.name}: tensor {name} has type {kind}; an adapter's tensors are floating point")
        arrays[name] = array_of(path, name, tensor, AdapterError)
    return arrays
