"""The file that `eptx convert` is to read: the one that is given, or the only one of its kind in a folder."""

from __future__ import annotations

from pathlib import Path

from eptx._one_line import some
from eptx.errors import AdapterError, UsageError

_WEIGHTS = "adapter_model.safetensors"
#: How the files end that torch has pickled.
PICKLES = (".bin", ".pt", ".pth")


def find_tensor_file(source: Path) -> Path:
    """The file with the tensors.

    Args:
        source: the file, or its folder.

    Raises:
        AdapterError: there is none.
        UsageError: there are several.
    """
    if source.is_file():
        return source
    if not source.is_dir():
        raise AdapterError(f"{source}: no such folder or file")
    if (source / _WEIGHTS).is_file():
        return source / _WEIGHTS
    found = sorted(path for path in source.iterdir() if path.suffix in PICKLES)
    if not found:
        raise AdapterError(f"{source}: holds no .bin, .pt or .pth file, and no {_WEIGHTS}")
    if len(found) > 1:
        listed = some([str(path) for path in found])
        raise UsageError(f"{source}: holds {len(found)} files of tensors: give the one you mean: {listed}")
    return found[0]
