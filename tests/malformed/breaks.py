"""Ways to break a file; each returns a change to apply to a scene."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.malformed.scene import PREFIX, Scene

CONFIG, WEIGHTS, HEADS = "adapter_config.json", "adapter_model.safetensors", "task_heads.safetensors"
Change = Callable[[Scene], Any]
Header = dict[str, Any]


def all_of(*changes: Change) -> Change:
    """Several changes, in order."""

    def apply(scene: Scene) -> None:
        for change in changes:
            change(scene)

    return apply


def write(name: str, content: str | bytes) -> Change:
    """Replaces a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda scene: (scene.root / name).write_bytes(data)


def cut(name: str, size: int) -> Change:
    """Keeps the first bytes of a file; of its last ones, the rest for a negative size."""

    def apply(scene: Scene) -> None:
        path = scene.root / name
        os.truncate(path, size if size >= 0 else path.stat().st_size + size)

    return apply


def remove(name: str) -> Change:
    """Deletes a file."""
    return lambda scene: (scene.root / name).unlink()


def fifo(name: str) -> Change:
    """A FIFO in the place of a file: whoever opens it to read waits for ever."""
    return lambda scene: ((scene.root / name).unlink(missing_ok=True), os.mkfifo(scene.root / name))


def folder(name: str) -> Change:
    """A folder in the place of a file."""
    return lambda scene: ((scene.root / name).unlink(missing_ok=True), (scene.root / name).mkdir())


def replace_text(name: str, old: str, new: str) -> Change:
    """Replaces a part of a text file."""

    def apply(scene: Scene) -> None:
        text = (scene.root / name).read_text()
        assert old in text
        (scene.root / name).write_text(text.replace(old, new, 1))

    return apply


def config(adapter: str, /, *removed: str, **changed: Any) -> Change:
    """Changes the settings of an adapter."""

    def apply(scene: Scene) -> None:
        path = scene.root / adapter / CONFIG
        value = {k: v for k, v in json.loads(path.read_text()).items() if k not in removed}
        path.write_text(json.dumps(value | changed))

    return apply


def raw_config(adapter: str, key: str, text: str) -> Change:
    """Gives one setting a value that `json.dumps` would not write."""

    def apply(scene: Scene) -> None:
        path = scene.root / adapter / CONFIG
        value = {k: v for k, v in json.loads(path.read_text()).items() if k != key}
        path.write_text(json.dumps(value)[:-1] + f', "{key}": {text}}}')

    return apply


def tensors(file: str, change: Callable[[dict[str, np.ndarray]], Any]) -> Change:
    """Changes the tensors of a safetensors file; their names come without ``base_model.model.``."""

    def apply(scene: Scene) -> None:
        path = scene.root / file
        loaded = load_file(path)
        prefix = PREFIX if any(name.startswith(PREFIX) for name in loaded) else ""
        arrays = {name.removeprefix(prefix): array for name, array in loaded.items()}
        change(arrays)
        save_file({prefix + name: np.ascontiguousarray(a) for name, a in arrays.items()}, path)

    return apply


def weights(adapter: str, change: Callable[[dict[str, np.ndarray]], Any]) -> Change:
    """Changes the tensors of an adapter."""
    return tensors(f"{adapter}/{WEIGHTS}", change)


def heads(change: Callable[[dict[str, np.ndarray]], Any]) -> Change:
    """Changes the EPT adapter's task heads."""
    return tensors(f"ept/{HEADS}", change)


def put(name: str, array: Any) -> Callable[[dict[str, np.ndarray]], None]:
    """One tensor replaced, by an array or by what a function makes of it."""

    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name] = array(arrays[name]) if callable(array) else np.asarray(array)

    return change


def drop(*names: str) -> Callable[[dict[str, np.ndarray]], None]:
    """Tensors that are missing."""

    def change(arrays: dict[str, np.ndarray]) -> None:
        for name in names:
            del arrays[name]

    return change


def rename(old: str, new: str) -> Callable[[dict[str, np.ndarray]], None]:
    """Every tensor whose name holds a text, with another there."""

    def change(arrays: dict[str, np.ndarray]) -> None:
        for name in [n for n in arrays if old in n]:
            arrays[name.replace(old, new)] = arrays.pop(name)

    return change


def setting(index: Any, value: float) -> Callable[[np.ndarray], np.ndarray]:
    """One number of an array changed."""

    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[index] = value
        return array

    return change


def header(file: str, change: Callable[[Header], Header | str | None]) -> Change:
    """Rewrites the header of a safetensors file; the data stays."""

    def apply(scene: Scene) -> None:
        path = scene.root / file
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        value = json.loads(data[8 : 8 + size])
        changed = change(value)
        text = changed if isinstance(changed, str) else json.dumps(value if changed is None else changed)
        path.write_bytes(struct.pack("<Q", len(text.encode())) + text.encode() + data[8 + size :])

    return apply


def header_length(file: str, length: int) -> Change:
    """Makes the header claim another length."""

    def apply(scene: Scene) -> None:
        path = scene.root / file
        path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])

    return apply


def first(header: Header) -> Header:
    """The entry of the first tensor of a header."""
    entry: Header = next(value for key, value in header.items() if key != "__metadata__")
    return entry


def append(path: Path, data: bytes) -> None:
    """Adds bytes to a file."""
    with path.open("ab") as file:
        file.write(data)
