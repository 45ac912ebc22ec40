"""From what the user names to folders: the base's, and each adapter's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from eptx._one_line import shown, some
from eptx.errors import AdapterError, BaseModelError, EptxError, UsageError
from eptx.exporter.folders.hub import fetch, is_id
from eptx.exporter.folders.kinds import ADAPTER_CONFIG, adapters_inside, file_instead, is_adapter, is_base
from eptx.files.strict_json import read_json_object
from eptx.progress import note

#: A path, or an id on the hub: ``owner/name`` or ``owner/name@revision``. A path that exists counts first.
Given: TypeAlias = str | Path
#: One, or several, each a task.
Adapters: TypeAlias = Given | Sequence[Given]
_BASE, _ADAPTER = "base model folder", "adapter folder"


@dataclass(frozen=True)
class Found:
    """The folders of an export.

    Attributes:
        base: the transformers folder; None with an ONNX base alone.
        adapters: the adapter's, or several, each a task.
    """

    base: Path | None
    adapters: tuple[Path, ...]


def find_folders(base: Given | None, adapters: Adapters, *, onnx: bool = False, allow_pickle: bool = False) -> Found:
    """The folders of a base and its adapters.

    Args:
        base: where the base is; None: where the adapters' own configuration says, unless there is an ONNX base.
        adapters: where the adapters are.
        onnx: whether an ONNX file of the base is given.
        allow_pickle: whether a pickle may be an adapter's weights.

    Raises:
        UsageError: something is given twice, or the adapters do not say their base.
        BaseModelError, AdapterError: one is neither there, nor in the hub's cache, nor on the hub.
    """
    if base is None:
        found = find_adapters(adapters, allow_pickle=allow_pickle)
        return Found(None if onnx else _base_of(found), found)
    folder = find_base(base)
    for adapter in _list(adapters):
        if Path(adapter).is_dir() and Path(adapter).resolve() == folder.resolve():
            raise UsageError(f"{base} is given as the base and as an adapter")
    return Found(folder, find_adapters(adapters, allow_pickle=allow_pickle))


def find_arguments(paths: Sequence[Given], *, onnx: bool = False, allow_pickle: bool = False) -> Found:
    """The folders of ``[BASE] ADAPTER...``: the base may be left out, and is told apart by its files.

    Raises:
        UsageError: base and adapter are swapped.
        Besides those of `find_folders`.
    """
    if len(paths) == 1:
        return find_folders(None, paths, onnx=onnx, allow_pickle=allow_pickle)
    first = _folder(paths[0], _BASE, BaseModelError, allow_pickle)
    if not is_adapter(first):
        return find_folders(first, paths[1:], onnx=onnx, allow_pickle=allow_pickle)
    base = next((path for path in paths[1:] if is_base(Path(path))), None)
    if base is not None:
        raise UsageError(f"{paths[0]} is an adapter's folder and {base} a base model's: give the base first")
    return find_folders(None, paths, onnx=onnx, allow_pickle=allow_pickle)


def find_base(base: Given) -> Path:
    """The folder of a base.

    Raises:
        BaseModelError: it is neither there, nor in the hub's cache, nor on the hub.
    """
    return _folder(base, _BASE, BaseModelError)


def find_adapters(adapters: Adapters, *, allow_pickle: bool = False) -> tuple[Path, ...]:
    """The folder of each adapter; of one that lies inside the folder that is named, that.

    Raises:
        UsageError: there are several inside; or one is given twice.
        AdapterError: one is neither there, nor in the hub's cache, nor on the hub.
    """
    adapters = _list(adapters)
    found = tuple(_inside(_folder(adapter, _ADAPTER, AdapterError, allow_pickle)) for adapter in adapters)
    places = [folder.resolve() for folder in found]
    for at, place in enumerate(places):
        if place in places[:at]:
            raise UsageError(f"the adapter {adapters[at]} is given twice: give one adapter folder for each task")
    return found


def _list(adapters: Adapters) -> Sequence[Given]:
    return [adapters] if isinstance(adapters, str | Path) else adapters


def _folder(source: Given, what: str, error: type[EptxError], allow_pickle: bool = False) -> Path:
    path = Path(source)
    if path.exists():
        if not path.is_dir():
            raise error(f"{path}: no such {what}{file_instead(path)}")
        return path
    if not is_id(str(source)):
        raise error(f"{path}: no such {what}")
    return fetch(str(source), what=what, error=error, allow_pickle=allow_pickle)


def _inside(folder: Path) -> Path:
    """The folder itself, or the one adapter in it."""
    inside = adapters_inside(folder)
    if (folder / ADAPTER_CONFIG).exists():
        others = [path.name for path in inside if not path.name.startswith("checkpoint-")]
        if others:
            note(f"{folder}: also holds adapters with a name ({some(others)}), which are not exported")
        return folder
    if not inside:
        return folder  # its reader says what is missing
    if len(inside) == 1:
        note(f"{folder}: the adapter in it is {inside[0].relative_to(folder)}")
        return inside[0]
    listed = some([str(path) for path in inside], most=8)
    raise UsageError(f"{folder}: holds {len(inside)} adapters and is none itself: give the one you mean: {listed}")


def _base_of(adapters: Sequence[Path]) -> Path:
    """The base that adapters say they were trained on."""
    said = [_said_by(folder) for folder in adapters]
    if len(set(said)) > 1:
        raise UsageError(f"the adapters name different bases, {some(sorted(set(said)))}: give BASE before them")
    note(f"base: {said[0]} (no BASE is given; {ADAPTER_CONFIG} names it)")
    try:
        return find_base(said[0])
    except BaseModelError as problem:
        raise BaseModelError(f"{ADAPTER_CONFIG} names the base {problem}; or give BASE before the adapter") from None


def _said_by(folder: Path) -> str:
    if is_base(folder):
        raise UsageError(f"{folder} is a base model's folder, and no adapter is given: give BASE and ADAPTER")
    config: dict[str, Any] = read_json_object(folder / ADAPTER_CONFIG, error=AdapterError)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or not name.isprintable() or not name:
        said = f"base_model_name_or_path={shown(name)}"
        raise UsageError(f"no base is given, and {folder}/{ADAPTER_CONFIG} names none ({said}): give BASE and ADAPTER")
    pinned = isinstance(revision, str) and revision and not Path(name).exists()
    return f"{name}@{revision}" if pinned else name
