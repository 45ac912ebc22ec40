"""What a bundle is held against: the adapter and base that it was made from, or those given instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eptx._files import fingerprint, is_contained_name
from eptx._onnx_scan import scan_onnx
from eptx.bundle import Manifest
from eptx.errors import BaseModelError, BundleError, UsageError
from eptx.exporter.adapter import Adapter
from eptx.exporter.base.checkpoint import folder_fingerprint
from eptx.exporter.read import BASE_TASK, read_adapter
from eptx.exporter.validation.options import ValidateOptions


@dataclass(frozen=True)
class Truth:
    """The trained model.

    Attributes:
        base: its base's transformers folder.
        adapter: the adapter as its files hold it; tasks have the bundle's names.
        ids: the bundle's task name -> the adapter's task id; ``base`` is one past the last.
        folders: where the adapter is.
        names: the tasks' names by id, where its files do not hold them.
        warnings: fingerprints that differ from the bundle's.
    """

    base: Path
    adapter: Adapter
    ids: dict[str, int]
    warnings: tuple[str, ...]
    folders: Sequence[Path] = ()
    names: Sequence[str] | None = None


def find_truth(manifest: Manifest, options: ValidateOptions) -> Truth:
    """Reads the adapter and finds the base.

    Raises:
        UsageError: one of them is not where the export found it, and was not given.
        AdapterError, BaseModelError: their files are damaged.
    """
    base = _base(manifest, options)
    folders = _adapters(manifest, options)
    adapter, names = _read(manifest, folders, options)
    ids = _ids(manifest, adapter)
    warnings = []
    if adapter.fingerprint != manifest.fingerprints.get("adapter"):
        warnings.append("the adapter is not the one that the bundle was made from (its fingerprint differs)")
    base_warning = _base_warning(manifest, options, base)
    warnings += [base_warning] if base_warning else []
    return Truth(base, adapter, ids, tuple(warnings), folders, names)


def _base(manifest: Manifest, options: ValidateOptions) -> Path:
    if options.base is not None:
        return options.base
    if manifest.sources.base is None:
        beside = Path(manifest.sources.base_onnx or "").absolute().parent
        if (beside / "config.json").is_file():
            return beside
        raise UsageError("the bundle was made from an ONNX file alone: give the base's transformers folder with --base")
    return _found(manifest.sources.base, "base", "--base")


def _adapters(manifest: Manifest, options: ValidateOptions) -> list[Path]:
    if options.adapters:
        return list(options.adapters)
    return [_found(path, "adapter", "--adapter") for path in manifest.sources.adapter]


def _found(path: str, what: str, option: str) -> Path:
    if not Path(path).is_dir():
        raise UsageError(f"the {what} that the bundle was made from is not at {path}: give {option} DIR")
    return Path(path)


def _read(
    manifest: Manifest, folders: Sequence[Path], options: ValidateOptions
) -> tuple[Adapter, Sequence[str] | None]:
    """The adapter, and the names of its tasks as they had to be given."""
    top_k = options.top_k if options.top_k is not None else manifest.sources.top_k
    names = options.tasks or manifest.sources.tasks
    if names is None and manifest.mode != "static":
        names = [task.name for task in manifest.tasks if task.name != BASE_TASK]
    adapter = read_adapter(folders, top_k=top_k, tasks=names)
    if names is None and len(adapter.tasks) == 1 and adapter.heads is None:
        names = [manifest.tasks[0].name]
        adapter = read_adapter(folders, top_k=top_k, tasks=names)
    return adapter, names


def _ids(manifest: Manifest, adapter: Adapter) -> dict[str, int]:
    known = {name: index for index, name in enumerate((*adapter.tasks, BASE_TASK))}
    unknown = [task.name for task in manifest.tasks if task.name not in known]
    if unknown:
        raise UsageError(
            f"the bundle's task {unknown[0]!r} is not one of the adapter's ({', '.join(adapter.tasks)}): "
            "name them by id with --tasks"
        )
    return {task.name: known[task.name] for task in manifest.tasks}


def _base_warning(manifest: Manifest, options: ValidateOptions, base: Path) -> str | None:
    wanted = manifest.fingerprints.get("base")
    onnx = options.base_onnx
    if onnx is None and manifest.sources.base_onnx is not None:
        onnx = Path(manifest.sources.base_onnx)
        if not onnx.exists():
            return f"the base's ONNX file is not at {onnx}, so its fingerprint was not compared; see --base-onnx"
    found = folder_fingerprint(base) if onnx is None else _onnx_fingerprint(onnx)
    return (
        None if found == wanted else "the base is not the one that the bundle was made from (its fingerprint differs)"
    )


def _onnx_fingerprint(path: Path) -> str:
    """As `load_onnx` computes it: over the file and its external data."""
    try:
        names = sorted({data.location for data in scan_onnx(path).external})
    except BundleError as error:
        raise BaseModelError(str(error)) from None
    contained = [name for name in names if is_contained_name(name)]
    return fingerprint({path.name: path} | {name: path.parent / name for name in contained}, error=BaseModelError)
