"""The tensors of a transformers folder, by the names that its files give them, read when asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from eptx.errors import BaseModelError
from eptx.exporter.adapters.tensor_files.safetensors import COPY
from eptx.exporter.bases.weights.missing import lacking_weights
from eptx.exporter.bases.weights.unfit_folder import check_dtype
from eptx.files.safe_files import fingerprint, is_contained_name, open_regular
from eptx.files.strict_json import read_json_object

__all__ = ["BaseCheckpoint", "folder_fingerprint", "has_weights", "weight_files"]

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a transformers folder's weights.

    Raises:
        BaseModelError: there are none (pickles are never read), or the index is damaged or names odd files.
    """
    if (folder / _SINGLE).exists():
        return [folder / _SINGLE]
    if (folder / _INDEX).exists():
        entries = read_json_object(folder / _INDEX, error=BaseModelError).get("weight_map")
        if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries.values()):
            raise BaseModelError(f"{_INDEX}: weight_map must map a tensor to the name of its file: download it again")
        names = sorted(set(entries.values()))
        for name in names:
            if not is_contained_name(name) or "/" in name or not name.endswith(".safetensors"):
                raise BaseModelError(
                    f"{_INDEX}: {json.dumps(name)[:80]} is not the name of a safetensors file: download it again"
                )
            if not (folder / name).exists():
                raise BaseModelError(f"{folder.name}: {name}, which {_INDEX} names, is missing: download it too")
        return [folder / name for name in names]
    raise BaseModelError(f"{folder.name}: {lacking_weights(folder, _SINGLE)}")


def has_weights(folder: Path) -> bool:
    """Whether a folder has safetensors weights; one that only has pickles counts as one without weights."""
    return (folder / _SINGLE).exists() or (folder / _INDEX).exists()


def folder_fingerprint(folder: Path) -> str:
    """``sha256:<hex>`` over the configuration and the weights of a transformers folder."""
    paths = [folder / "config.json", *weight_files(folder)]
    return fingerprint({path.name: path for path in paths}, error=BaseModelError)


class BaseCheckpoint:
    """A transformers folder's tensors, one at a time."""

    def __init__(self, folder: Path) -> None:
        """Reads the headers.

        Args:
            folder: holds ``model.safetensors``, or several with an index.

        Raises:
            BaseModelError: a file is missing, damaged, or not a regular file.
            NotSupportedError: the weights are quantized.
        """
        self._files: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for path in weight_files(folder):
            with open_regular(path, error=BaseModelError):
                pass  # a FIFO must not block the library
            try:
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118 - not a mapping
                        self._files[name] = path
                        stored = file.get_slice(name)
                        check_dtype(path.name, name, stored.get_dtype())
                        self._shapes[name] = tuple(stored.get_shape())
            except (SafetensorError, OSError, ValueError) as e:
                raise BaseModelError(f"{path.name}: damaged safetensors file: {e}: {COPY}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def file(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._files[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._shapes[name]

    def array(self, name: str) -> np.ndarray:
        """A tensor; float64 if stored so, else float32 (which holds float16 and bfloat16 exactly)."""
        path = self._files[name]
        try:
            with safe_open(path, framework="pt") as file:
                tensor = file.get_tensor(name)
        except (SafetensorError, OSError, ValueError) as e:
            raise BaseModelError(f"{path.name}: damaged safetensors file: {e}: {COPY}") from None
        array: np.ndarray = tensor.numpy() if tensor.dtype.itemsize == 8 else tensor.float().numpy()
        return array
