"""One adapter folder as it lies on disk: configuration, tensors, task heads, fingerprint."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from eptx._one_line import shown, some
from eptx.errors import AdapterError, NotSupportedError
from eptx.exporter.adapters.adapter import TaskHeads
from eptx.exporter.adapters.changes import TensorChange
from eptx.exporter.adapters.heads import CONFIG as CONFIG
from eptx.exporter.adapters.heads import HEADS as HEADS
from eptx.exporter.adapters.heads import read_heads
from eptx.exporter.adapters.label_names import Names, check_names, names_beside
from eptx.exporter.adapters.saved import saved_changes
from eptx.exporter.adapters.tensor_files.names import in_class, plain_names
from eptx.exporter.adapters.tensor_files.weights import WEIGHTS as WEIGHTS
from eptx.exporter.adapters.tensor_files.weights import read_weights, weights_of
from eptx.exporter.adapters.trained_as import TrainedAs, base_name
from eptx.files.in_folder import in_folder
from eptx.files.links import check_links
from eptx.files.safe_files import fingerprint
from eptx.files.strict_json import read_json_object

#: How the names of an adapter's files begin.
FILES = ("adapter_", "task_heads.")
#: What to do about a file whose tensors do not fit each other, and about tensors that nothing here knows.
AGAIN = "save the adapter again with PEFT's save_pretrained"
UNKNOWN = f"if a newer PEFT made them, update eptx, else {AGAIN}"
#: Settings that have nothing to do with what an adapter computes, or that other files of eptx read.
OF_EVERY_ADAPTER = frozenset(
    {
        *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
        *("inference_mode", "modules_to_save", "tasks", "task_labels", "task_head_pooling"),
    }
)


@dataclass(frozen=True)
class ReadOptions:
    """What the user says of an adapter that its files do not.

    Attributes:
        top_k: how many experts a task uses.
        tasks: names of the tasks, by id.
        incomplete: read also what cannot be exported yet, to show it: without a top-k.
    """

    top_k: int | None = None
    tasks: Sequence[str] | None = None
    incomplete: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """The files of one adapter folder.

    Attributes:
        name: the folder's name; of several folders, what tells them apart.
        config: ``adapter_config.json``.
        tensors: name without ``base_model.model.`` -> array; the adapter's own.
        saved: the same of modules that PEFT saved whole, whether the configuration says so or not.
        trained_as: what the configuration says of the class.
        heads: the task heads beside it, or None.
        fingerprint: ``sha256:<hex>`` over its files.
        label_names: task -> the names of its labels (``task_labels``); of None those in the ``config.json`` that some
            trainers save beside it.
    """

    name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]
    saved: Mapping[str, np.ndarray]
    trained_as: TrainedAs
    heads: TaskHeads | None
    fingerprint: str
    label_names: Mapping[str | None, Names] = field(default_factory=dict)

    @property
    def whole(self) -> dict[str, TensorChange]:
        """What PEFT saved whole, as changes of the base's tensors."""
        return saved_changes(self.config, self.saved, f"{self.name}/{WEIGHTS}")


@dataclass(frozen=True)
class OwnTensors:
    """How an adapter's tensors are told from those of modules that PEFT saved whole.

    Attributes:
        parts: of their names.
        integers: whether some of them are indices.
        telling: those behind whose names only the adapter's own can stand, in the `state_dict` of a model.
    """

    parts: tuple[str, ...] = ()
    integers: bool = False
    telling: tuple[str, ...] = ()


def read_checkpoint(
    folder: Path, own_tensors: Callable[[Mapping[str, Any]], OwnTensors], *, allow_pickle: bool = False
) -> Checkpoint:
    """Reads an adapter folder.

    Args:
        folder: as PEFT saves it.
        own_tensors: from the adapter's configuration to which tensors are its own.
        allow_pickle: whether a pickle is read where there are no safetensors.

    Raises:
        AdapterError: a file is missing, damaged, not an adapter's, or a link to one elsewhere.
    """
    if not folder.is_dir():
        raise AdapterError(f"{folder}: no such adapter folder")
    with in_folder(folder.name, FILES):
        return _read(folder, own_tensors, allow_pickle)


def _read(folder: Path, own_tensors: Callable[[Mapping[str, Any]], OwnTensors], allow_pickle: bool) -> Checkpoint:
    check_links(folder, error=AdapterError)
    if (folder / CONFIG).exists():  # what eptx convert is for is said before anything of its pickle
        own_tensors(read_json_object(folder / CONFIG, error=AdapterError))
    weights = weights_of(folder, allow_pickle=allow_pickle)
    config = read_json_object(folder / CONFIG, error=AdapterError)
    kind = own_tensors(config)
    stored = read_weights(weights, integers=kind.integers)
    plain = plain_names(stored, kind.parts, kind.telling, weights.name)
    tensors = {plain[name]: array for name, array in stored.items()}
    if not tensors:
        raise AdapterError(f"{weights.name}: holds no tensors: {AGAIN}")
    heads = read_heads(folder, config) if (folder / HEADS).exists() else None
    files = {path.name: path for path in (folder / CONFIG, weights, folder / HEADS) if path.exists()}
    own = {name: array for name, array in tensors.items() if any(part in f".{name}" for part in kind.parts)}
    saved = in_class({name: array for name, array in tensors.items() if name not in own})
    _check_saved(saved, heads, config)
    print_of = fingerprint(files, error=AdapterError)
    names = names_beside(folder, config)
    if heads is not None:
        check_names(names, {task: heads.labels(task) for task in heads.weights})
    said = replace(_trained_as(config), saved={name: array.shape for name, array in saved.items()})
    return Checkpoint(folder.name, config, own, saved, said, heads, print_of, names)


def _check_saved(saved: Mapping[str, np.ndarray], heads: TaskHeads | None, config: Mapping[str, Any]) -> None:
    """Refuses tensors that are of no module, modules without tensors, and heads in both places."""
    if config.get("modules_to_save") and not saved:
        said = f"{CONFIG}: modules_to_save={shown(config['modules_to_save'])}"
        raise AdapterError(f"{said}, but {WEIGHTS} holds none of them: what was trained is lost; save it again")
    for name, array in saved.items():
        if "." not in name.strip("."):
            raise AdapterError(f"{WEIGHTS}: unexpected tensors: {shown(name)[1:-1]}; {UNKNOWN}")
        if 0 in array.shape:
            raise AdapterError(f"{WEIGHTS}: {name} is empty: it has shape {list(array.shape)}; {AGAIN}")
    if saved and heads is not None:
        module = next(iter(saved)).rpartition(".")[0]
        problem = f"{HEADS} is beside a {WEIGHTS} that holds {module} whole: it is not clear which one counts"
        raise AdapterError(f"{problem}; move {HEADS} away, or train without modules_to_save")


def _trained_as(config: Mapping[str, Any]) -> TrainedAs:
    mapping = config.get("auto_mapping") or {}
    noted = mapping.get("base_model_class") if isinstance(mapping, dict) else mapping
    for key, value in (("auto_mapping", noted), ("task_type", config.get("task_type"))):
        if value is not None and not isinstance(value, str):
            raise AdapterError(f"{CONFIG}: {key} must name a class, found {shown(value)}")
    return TrainedAs(noted, config.get("task_type"), base=base_name(config))


def combine(fingerprints: Sequence[str]) -> str:
    """One fingerprint for several folders; that of a single folder is its own."""
    if len(fingerprints) == 1:
        return fingerprints[0]
    return f"sha256:{hashlib.sha256(' '.join(fingerprints).encode()).hexdigest()}"


def group_by_module(tensors: Mapping[str, np.ndarray], marker: str) -> dict[str, dict[str, np.ndarray]]:
    """Tensors by module: ``<module>.<marker>...`` becomes module -> {rest from the marker on: array}.

    Raises:
        AdapterError: a tensor's name has no such marker.
    """
    modules: dict[str, dict[str, np.ndarray]] = {}
    extra = []
    for name, array in tensors.items():
        module, found, rest = name.partition(f".{marker}")
        if not found or not module:
            extra.append(name)
            continue
        modules.setdefault(module, {})[marker + rest] = array
    if extra:
        raise AdapterError(f"{WEIGHTS}: unexpected tensors: {some(sorted(extra))}; {UNKNOWN}")
    return modules


def take(parts: dict[str, np.ndarray], module: str, key: str, ndim: int) -> np.ndarray:
    """Removes one tensor from a module's.

    Raises:
        AdapterError: it is missing, has another rank than `ndim`, or an empty axis.
    """
    if key not in parts:
        raise AdapterError(f"{WEIGHTS}: {module}.{key} is missing: {AGAIN}")
    array = parts.pop(key)
    if array.ndim != ndim or 0 in array.shape:
        problem = f"{module}.{key} has shape {list(array.shape)}; it must have {ndim} axes"
        raise AdapterError(f"{WEIGHTS}: {problem}: {AGAIN}")
    return array


def refuse_rest(parts: Mapping[str, np.ndarray], module: str) -> None:
    """Raises AdapterError if a module has tensors that its method does not know."""
    if parts:
        raise AdapterError(f"{WEIGHTS}: unexpected tensors of {module}: {some(sorted(parts))}; {UNKNOWN}")


def number(config: Mapping[str, Any], key: str, *, default: float | None = None) -> float:
    """A positive number of the configuration.

    Raises:
        AdapterError: it is missing or not a positive number.
    """
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= sys.float_info.max:
        raise AdapterError(f"{CONFIG}: {key} must be a positive number, found {shown(value)}")
    return value


def flag(config: Mapping[str, Any], key: str) -> bool:
    """A setting that is on or off; off where it is missing.

    Raises:
        AdapterError: it is neither.
    """
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise AdapterError(f"{CONFIG}: {key} must be true or false, found {shown(value)}")
    return bool(value)


def task_names(config: Mapping[str, Any]) -> list[str] | None:
    """The names of the tasks by id, as eptx's training saves them; None where it did not.

    Raises:
        AdapterError: they are not a list of names.
    """
    names = config.get("tasks")
    if names is not None and (not isinstance(names, list) or not all(isinstance(name, str) for name in names)):
        raise AdapterError(f"{CONFIG}: tasks must be a list of names, found {shown(names)}")
    return names


def refuse_unknown(config: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuses, by name, settings that are neither `known` nor in every file of PEFT's.

    Raises:
        NotSupportedError: there is one, and it is not off.
    """
    for key, value in config.items():
        if value and key not in OF_EVERY_ADAPTER and key not in known:
            said = f"{CONFIG}: {key}={shown(value)} is not supported"
            raise NotSupportedError(f"{said}: this version of eptx does not know the setting: update eptx")


def refuse_options(config: Mapping[str, Any], refused: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuses, by name, settings that would change what the adapter computes.

    Args:
        config: the adapter's configuration.
        refused: key -> the values that change nothing.

    Raises:
        NotSupportedError: a key has another value.
    """
    for key, harmless in refused.items():
        if key in config and config[key] not in harmless:
            advice = f"train the adapter with {key}={shown(harmless[0])}"
            raise NotSupportedError(f"{CONFIG}: {key}={shown(config[key])} is not supported: {advice}")
