"""Reads an adapter of any method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from eptx._one_line import shown
from eptx.errors import AdapterError, EptxError, UsageError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.checkpoint import (
    CONFIG,
    FILES,
    WEIGHTS,
    Checkpoint,
    OwnTensors,
    ReadOptions,
    read_checkpoint,
)
from eptx.exporter.adapters.label_names import Names
from eptx.exporter.adapters.task_names import names_of
from eptx.exporter.methods.method import Method, conversions, methods, titles
from eptx.files.in_folder import in_folder
from eptx.manifest.names import AUTO_TASK, BASE_TASK


def read_adapter(
    folders: Sequence[Path],
    *,
    top_k: int | None = None,
    tasks: Sequence[str] | None = None,
    incomplete: bool = False,
    allow_pickle: bool = False,
) -> Adapter:
    """The adapter in one folder, or in several that share a base and are a task each.

    Args:
        folders: as PEFT, the methods' released code, or eptx's training saves them.
        top_k: how many experts a task uses, where the configuration does not say it.
        tasks: names of the tasks, by id; the rest are named task<i>.
        incomplete: read also an adapter whose top-k is needed and not known (0), to show it.
        allow_pickle: whether ``adapter_model.bin`` is read where there are no safetensors.

    Raises:
        AdapterError: a file is missing or damaged, or the folder holds no adapter that eptx reads.
        NotSupportedError: the adapter uses something that eptx does not reproduce.
        UsageError: top-k is needed and missing, or the names do not fit.
    """
    if not folders:
        raise UsageError("no adapter given")
    checkpoints = [read_checkpoint(folder, _own_tensors, allow_pickle=allow_pickle) for folder in folders]
    if len(checkpoints) > 1:
        checkpoints = [replace(each, name=name) for each, name in zip(checkpoints, names_of(folders), strict=True)]
    method = _method_of_all(checkpoints)
    if top_k is not None and "--top-k" not in method.flags:
        raise UsageError(f"--top-k is for {titles('--top-k')} adapters; this one is {method.name}")
    with in_folder(checkpoints[0].name, FILES) if len(checkpoints) == 1 else nullcontext():  # else the method does it
        read: Adapter = method.read(checkpoints, ReadOptions(top_k, tasks, incomplete))
    adapter = replace(read, folders=tuple(folders), label_names=_label_names(read.tasks, checkpoints))
    _check_tasks(adapter, UsageError if tasks else AdapterError)
    return adapter


def _own_tensors(config: Mapping[str, Any]) -> OwnTensors:
    """What some method knows as its own.

    Raises:
        AdapterError: the configuration is one that is converted.
    """
    _refuse_released(config, (), CONFIG)
    found = [method.own_tensors(config) for method in methods()]
    return OwnTensors(
        tuple({part: None for own in found for part in own.parts}),
        any(own.integers for own in found),
        tuple(name for own in found for name in own.telling),
    )


def _label_names(tasks: Sequence[str], checkpoints: Sequence[Checkpoint]) -> dict[str, tuple[Names, ...]]:
    """What the files call each task's labels: by the task's name, or, of one task, by the only name there is."""
    found = {}
    for at, task in enumerate(tasks):
        names = checkpoints[at if len(checkpoints) > 1 else 0].label_names
        by_task = [own for said, own in names.items() if said is not None]
        alone = len(checkpoints) in (1, len(tasks)) and len(by_task) == 1 and len(tasks) == len(checkpoints)
        told = [names[task]] if task in names else by_task if alone else []
        found[task] = (*told, *([names[None]] if None in names else []))
    return found


def _method_of_all(checkpoints: Sequence[Checkpoint]) -> Method:
    """The method that reads all folders: that of each, or one of PEFT's that takes all of them."""
    own = list(dict.fromkeys(_method_of(checkpoint) for checkpoint in checkpoints))
    if len(own) == 1:
        return own[0]
    for method in methods() if all(method.last_choice for method in own) else ():
        if all(method.matches(checkpoint.config, list(checkpoint.tensors)) for checkpoint in checkpoints):
            return method
    raise UsageError(f"the adapters are of different methods: {', '.join(sorted(method.name for method in own))}")


def _method_of(checkpoint: Checkpoint) -> Method:
    config, names = checkpoint.config, list(checkpoint.tensors)
    found = next((method for method in methods() if method.matches(config, names)), None)
    if found is not None and not found.last_choice:
        return found
    _refuse_released(config, names, f"{checkpoint.name}/{WEIGHTS}")
    if found is not None:
        return found
    kind = config.get("peft_type")
    known = ", ".join(sorted(method.title for method in methods()))
    raise AdapterError(f"{checkpoint.name}/{CONFIG}: peft_type {shown(kind)} is not a method that eptx reads: {known}")


def _refuse_released(config: Mapping[str, Any], names: Sequence[str], file: str) -> None:
    """Refuses what ``eptx convert`` is for: several released codes call theirs LORA."""
    for conversion in conversions():
        if conversion.matches(config, names):
            said = f"{file}: is as the released code of {conversion.title} saves it"
            raise AdapterError(f"{said}: rewrite the folder with eptx convert")


def _check_tasks(adapter: Adapter, error: type[EptxError]) -> None:
    """Refuses names that cannot be used; `error` is for those who gave them."""
    for name in adapter.tasks:
        if not isinstance(name, str) or not name or not name.isprintable() or "," in name or name != name.strip():
            raise error(f"{name!r} cannot be the name of a task")
        if name in (BASE_TASK, AUTO_TASK):
            raise error(f"{name!r} is reserved and cannot be the name of a task: rename it with --tasks")
    if len(set(adapter.tasks)) != len(adapter.tasks):
        raise error(f"two tasks have the same name: {', '.join(adapter.tasks)}")
    if adapter.heads is not None:
        unknown = sorted(set(adapter.heads.weights) - set(adapter.tasks))
        if unknown:
            raise AdapterError(
                f"task_heads.safetensors has a head for {unknown[0]!r}; the tasks are {', '.join(adapter.tasks)}"
            )
