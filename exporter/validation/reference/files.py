"""The files of the trained model: of the adapter and base that a bundle was made from, or those given instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from eptx.bundle import Bundle, Manifest
from eptx.bundle.onnx_scan import scan_onnx
from eptx.bundle.origin import Origin, read_origin
from eptx.errors import AdapterError, BaseModelError, BundleError, UsageError
from eptx.exporter.adapters.checkpoint import combine
from eptx.exporter.bases.weights.checkpoint import folder_fingerprint
from eptx.exporter.folders import find_adapters, find_base
from eptx.exporter.trained import AdapterFiles, Trained, load_trained, name_tasks, read_files
from eptx.exporter.trained.files import CONFIG, HEADS, PICKLE, WEIGHTS
from eptx.exporter.trained.reference import reference_of, top_k_titles
from eptx.exporter.validation.base.source import has_tokenizer
from eptx.exporter.validation.options import ValidateOptions
from eptx.exporter.validation.reference.routes import check_routes
from eptx.files.safe_files import fingerprint, is_contained_name
from eptx.manifest.names import BASE_TASK
from eptx.runtime.ort.memory import release_models


@dataclass(frozen=True)
class Said:
    """What the user says of the trained model in a validation, and the bundle has no part in.

    Attributes:
        model_class: the class of transformers.
        label_names: task -> the names of its labels.
    """

    model_class: str | None = None
    label_names: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReferenceFiles:
    """The trained model's files.

    Attributes:
        base: the base's transformers folder.
        files: of the adapter's folders.
        tasks: the adapter's tasks by id.
        ids: task name -> its id, for the tasks that the bundle serves; ``base`` is one past the adapter's last.
        warnings: about fingerprints that differ from the bundle's.
        folders: the adapter's.
        names: the tasks' names by id, if the user or the bundle gives them.
        top_k: experts per task, if the user or the bundle gives it.
        model_class: the class of transformers, if the user or the bundle gives it.
        said: what the user alone says.
        allow_pickle: whether the user trusts pickles.
    """

    base: Path
    files: Sequence[AdapterFiles]
    tasks: tuple[str, ...]
    ids: dict[str, int]
    warnings: tuple[str, ...]
    folders: Sequence[Path] = ()
    names: Sequence[str] | None = None
    top_k: int | None = None
    model_class: str | None = None
    said: Said = field(default_factory=Said)
    allow_pickle: bool = False

    @property
    def homes(self) -> list[Path]:
        """The adapter's folders in which its trainer saved the tokenizer."""
        return [Path(folder) for folder in self.folders if has_tokenizer(Path(folder))]

    def load(self, dtype: torch.dtype) -> Trained:
        """The trained model, which computes in this type."""
        self.release_models()
        return load_trained(
            self.base,
            self.files,
            self.tasks,
            top_k=self.top_k,
            model_class=self.model_class,
            dtype=dtype,
            allow_pickle=self.allow_pickle,
        )

    def release_models(self) -> None:
        """Frees the models that were loaded and that nobody uses any more, if they are large."""
        release_models(sum(file.stat().st_size for file in self.base.iterdir() if file.is_file()))


def find_reference(manifest: Manifest, options: ValidateOptions) -> ReferenceFiles:
    """Reads the adapter's files and finds the base.

    Raises:
        UsageError: one of them is not known; or a static bundle's task is not one of the adapter's.
        AdapterError, BaseModelError: their files are damaged.
        BundleError: the bundle's routes are not the adapter's.
    """
    base, folders = _base(manifest, options), _adapters(options)
    files = read_files(folders, allow_pickle=options.allow_pickle)
    method = reference_of(files[0])
    if options.top_k is not None and not method.takes_top_k:
        raise UsageError(f"--top-k is for {top_k_titles()} adapters; this one is {method.name}")
    check_routes(manifest, files[0])
    names = options.tasks or manifest.sources.tasks
    tasks = name_tasks(files, names)
    if names is None and len(tasks) == 1 and files[0].heads is None:
        tasks = (manifest.tasks[0].name,)  # an adapter of one task without a name
        names = tasks
    warnings = []
    if _adapter_fingerprint(files) != manifest.fingerprints.get("adapter"):
        warnings.append("the adapter is not the one that the bundle was made from (its fingerprint differs)")
    base_warning = _base_warning(manifest, options, base)
    warnings += [base_warning] if base_warning else []
    top_k = options.top_k if options.top_k is not None else manifest.sources.top_k
    model_class = options.model_class or manifest.sources.model_class
    said = Said(options.model_class, {tasks[0] if name is None else name: own for name, own in options.labels.items()})
    ids = _ids(manifest, tasks)
    trusted = options.allow_pickle
    return ReferenceFiles(base, files, tasks, ids, tuple(warnings), folders, names, top_k, model_class, said, trusted)


def _base(manifest: Manifest, options: ValidateOptions) -> Path:
    if options.base is not None:
        return Path(options.base)
    if manifest.sources.base:
        raise _unknown("base", "--base")
    if options.base_onnx is not None and (options.base_onnx.absolute().parent / "config.json").is_file():
        return options.base_onnx.absolute().parent
    raise UsageError("the bundle was made from an ONNX file alone: give the base's transformers folder with --base")


def _adapters(options: ValidateOptions) -> list[Path]:
    if not options.adapters:
        raise _unknown("adapter", "--adapter")
    return list(find_adapters(options.adapters, allow_pickle=options.allow_pickle))


def _unknown(what: str, option: str) -> UsageError:
    return UsageError(f"nothing beside the bundle says where its {what} is: give {option} DIR")


def with_origin(bundle: Bundle, options: ValidateOptions) -> tuple[ValidateOptions, Origin]:
    """Completes the options from the origin file beside the bundle, and reads that file.

    Raises:
        UsageError: a folder that is needed is not where the export found it; or the file is damaged.
    """
    origin = read_origin(bundle)
    onnx = Path(origin.base_onnx) if origin.base_onnx is not None else None
    return replace(
        options,
        base=_given_base(options) or (None if origin.base is None else _found(origin.base, "base", "--base")),
        adapters=find_adapters(options.adapters or (), allow_pickle=options.allow_pickle)
        or [_found(path, "adapter", "--adapter") for path in origin.adapters],
        base_onnx=options.base_onnx or (onnx if onnx is not None and onnx.is_file() else None),
    ), origin


def _given_base(options: ValidateOptions) -> Path | None:
    return None if options.base is None else find_base(options.base)


def _found(path: str, what: str, option: str) -> Path:
    if not Path(path).is_dir():
        raise UsageError(f"the {what} that the bundle was made from is not at {path}: give {option} DIR")
    return Path(path)


def _ids(manifest: Manifest, tasks: Sequence[str]) -> dict[str, int]:
    """The ids of the tasks that a bundle serves; of a static one, its only task."""
    known = {name: index for index, name in enumerate((*tasks, BASE_TASK))}
    if manifest.mode != "static":
        served = [*tasks, *([BASE_TASK] if any(task.name == BASE_TASK for task in manifest.tasks) else [])]
        return {name: known[name] for name in served}
    name = manifest.tasks[0].name
    if name not in known:
        raise UsageError(
            f"the bundle's task {name!r} is not one of the adapter's ({', '.join(tasks)}): name them by id with --tasks"
        )
    return {name: known[name]}


def _adapter_fingerprint(files: Sequence[AdapterFiles]) -> str:
    def one(folder: Path) -> str:
        weights = WEIGHTS if (folder / WEIGHTS).exists() else PICKLE
        names = [name for name in (CONFIG, weights, HEADS) if (folder / name).exists()]
        return fingerprint({name: folder / name for name in names}, error=AdapterError)

    return combine([one(each.folder) for each in files])


def _base_warning(manifest: Manifest, options: ValidateOptions, base: Path) -> str | None:
    wanted = manifest.fingerprints.get("base")
    onnx = options.base_onnx
    if onnx is None and manifest.sources.base_onnx:
        return "the base's ONNX file is not known here, so its fingerprint was not compared; see --base-onnx"
    found = folder_fingerprint(base) if onnx is None else _onnx_fingerprint(onnx)
    return (
        None if found == wanted else "the base is not the one that the bundle was made from (its fingerprint differs)"
    )


def _onnx_fingerprint(path: Path) -> str:
    """The fingerprint over the file and its external data, as `load_onnx` computes it."""
    try:
        names = sorted({data.location for data in scan_onnx(path).external})
    except BundleError as error:
        raise BaseModelError(str(error)) from None
    contained = [name for name in names if is_contained_name(name)]
    return fingerprint({path.name: path} | {name: path.parent / name for name in contained}, error=BaseModelError)
