"""What lies at a path: a base, an adapter, or something that is given in the place of one."""

from __future__ import annotations

from pathlib import Path

ADAPTER_CONFIG = "adapter_config.json"
_BASE_CONFIG = "config.json"
_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json", "pytorch_model*.bin")
#: What to do with a file that is given in the place of a folder, by its ending.
_INSTEAD = {
    ".onnx": "an ONNX base is given with --base-onnx",
    ".gguf": "eptx does not read GGUF: give the transformers folder that it was made from",
    ".safetensors": "give the folder that it lies in",
    ".bin": "give the folder that it lies in",
    ".json": "give the folder that it lies in",
}


def is_adapter(folder: Path) -> bool:
    """Whether a folder is an adapter's. Some trainers save the base's config.json beside it, but not its weights."""
    return (folder / ADAPTER_CONFIG).exists() and not _has_weights(folder)


def is_base(folder: Path) -> bool:
    """Whether a folder is a whole model's."""
    return (folder / _BASE_CONFIG).exists() and not (folder / ADAPTER_CONFIG).exists()


def file_instead(path: Path) -> str:
    """What is said of a file that is given in the place of a folder; nothing where there is no file."""
    if not path.is_file():
        return ""
    advice = _INSTEAD.get(path.suffix, "")
    return f"; this is a file{f': {advice}' if advice else ''}"


def adapters_inside(folder: Path) -> list[Path]:
    """The adapters in the folders of a folder, one or two floors down: the first floor that has any."""
    for pattern in (f"*/{ADAPTER_CONFIG}", f"*/*/{ADAPTER_CONFIG}"):
        found = [path.parent for path in folder.glob(pattern) if not path.parent.is_symlink()]
        if found:
            return sorted(found, key=_in_order)
    return []


def _in_order(path: Path) -> tuple[str, int, str]:
    """checkpoint-500 stands before checkpoint-1000."""
    stem, _, number = path.name.rpartition("-")
    return (str(path.parent), int(number), stem) if number.isdecimal() else (str(path.parent), -1, path.name)


def _has_weights(folder: Path) -> bool:
    return any(next(iter(folder.glob(pattern)), None) is not None for pattern in _WEIGHTS)
