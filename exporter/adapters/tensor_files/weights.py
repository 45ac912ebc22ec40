"""The file of an adapter's folder that holds its tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eptx._one_line import shown
from eptx.errors import AdapterError
from eptx.exporter.adapters.tensor_files.safetensors import read_tensors

WEIGHTS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"


def weights_of(folder: Path, *, allow_pickle: bool) -> Path:
    """The file: safetensors, or, where there are none and it is allowed, a pickle.

    Raises:
        AdapterError: there is none; with what is there instead.
    """
    names = (WEIGHTS, PICKLE) if allow_pickle else (WEIGHTS,)
    found = next((folder / name for name in names if (folder / name).exists()), None)
    if found is None:
        raise AdapterError(f"{folder}: {_lacking(folder)}")
    return found


def read_weights(path: Path, *, integers: bool) -> dict[str, np.ndarray]:
    """The tensors of such a file as arrays, float32 or float64; with `integers` some may be indices."""
    if path.name != PICKLE:
        return read_tensors(path, integers=integers)
    from eptx.exporter.adapters.tensor_files.pickled import read_pickle  # loads PyTorch

    return read_pickle(path, integers=integers)


def _lacking(folder: Path) -> str:
    """What a folder without an adapter's weights has."""
    pickles = sorted(path.name for path in folder.glob("adapter_model.*"))
    if PICKLE in pickles:
        return (
            f"holds {PICKLE}, a pickle, and no {WEIGHTS}: load the adapter with PEFT and save it again, or, if you "
            "trust the file, read it with --allow-pickle"
        )
    if pickles and pickles[0].isprintable():
        return f"holds {pickles[0]}, which eptx never reads: save the adapter with safe_serialization=True"
    torch_files = sorted(path.name for path in folder.glob("*.pt*") if path.name.isprintable())
    if torch_files:
        return (
            f"holds {torch_files[0]}, a pickle, and no {WEIGHTS}: if a method's released code saved it, rewrite it "
            "with eptx convert"
        )
    inside = sorted(path.parent.name for path in folder.glob(f"*/{WEIGHTS}"))
    if inside:
        return f"{WEIGHTS} is missing; the folder {shown(inside[0])} inside it has one"
    if (folder / "config.json").exists() and not (folder / "adapter_config.json").exists():
        return f"{WEIGHTS} is missing; this is a whole model's folder, not an adapter's"
    return f"{WEIGHTS} is missing"
