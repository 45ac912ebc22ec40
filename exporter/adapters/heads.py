"""Task heads beside adapters: ``task_heads.safetensors`` of one folder, or of several that are a task each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eptx._one_line import shown, some
from eptx.errors import AdapterError
from eptx.exporter.adapters.adapter import Pooling, TaskHeads
from eptx.exporter.adapters.tensor_files.safetensors import read_tensors

CONFIG = "adapter_config.json"
HEADS = "task_heads.safetensors"


def read_heads(folder: Path, config: Mapping[str, Any]) -> TaskHeads:
    """The heads beside an adapter.

    Raises:
        AdapterError: they are damaged, or do not fit each other.
    """
    tensors = read_tensors(folder / HEADS)
    weights = {name.removesuffix(".weight"): array for name, array in tensors.items() if name.endswith(".weight")}
    biases = {name.removesuffix(".bias"): array for name, array in tensors.items() if name.endswith(".bias")}
    if not weights or len(weights) + len(biases) != len(tensors):
        raise AdapterError(f"{HEADS}: expected <task>.weight and <task>.bias, found {some(sorted(tensors))}")
    for task, bias in biases.items():
        if task not in weights:
            raise AdapterError(f"{HEADS}: {task}.bias has no {task}.weight")
        if bias.shape != weights[task].shape[:1]:
            raise AdapterError(f"{HEADS}: {task}.bias has shape {list(bias.shape)}, weight {list(weights[task].shape)}")
    if any(array.ndim != 2 or 0 in array.shape for array in weights.values()):
        raise AdapterError(f"{HEADS}: every <task>.weight must be [labels, hidden]")
    if len({array.shape[1] for array in weights.values()}) != 1:
        raise AdapterError(f"{HEADS}: the heads read vectors of different widths")
    zeros = {task: np.zeros(array.shape[0], array.dtype) for task, array in weights.items()}
    return TaskHeads(weights, zeros | biases, _pooling(config))


def heads_of(tasks: Sequence[str], folders: Sequence[str], heads: Sequence[TaskHeads | None]) -> TaskHeads | None:
    """The heads of several folders, each of one task; of a single folder, whatever it has.

    Args:
        tasks: by id.
        folders: their names.
        heads: of each folder.

    Raises:
        AdapterError: a folder has a head of another name than its task's, or they do not fit each other.
    """
    for task, folder, own in zip(tasks, folders, heads, strict=True) if len(folders) > 1 else ():
        other = next((name for name in own.weights if name != task), None) if own is not None else None
        if other is not None:
            raise AdapterError(
                f"{folder}/{HEADS}: has a head for {other!r}; the folder's task is {task!r}: name that {other!r}"
            )
    return joined_heads(heads)


def joined_heads(heads: Sequence[TaskHeads | None]) -> TaskHeads | None:
    """The heads of other tasks of one base side by side; None without any.

    Raises:
        AdapterError: they read other vectors, or only some are there.
    """
    found = [own for own in heads if own is not None]
    if len(found) not in (0, len(heads)):
        raise AdapterError(f"some of the adapters have a {HEADS}, and others have none: export each kind by itself")
    read = dict.fromkeys((own.pooling, own.hidden_size) for own in found)
    if len(read) > 1:
        said = " and ".join(f"{size} features (task_head_pooling {pooling!r})" for pooling, size in read)
        raise AdapterError(f"{HEADS}: the adapters' heads read different vectors: {said}")
    if not found:
        return None
    weights = {task: array for own in found for task, array in own.weights.items()}
    return TaskHeads(weights, {task: array for own in found for task, array in own.biases.items()}, found[0].pooling)


def _pooling(config: Mapping[str, Any]) -> Pooling:
    pooling = config.get("task_head_pooling", "pooler")
    if pooling not in ("pooler", "first", "mean"):
        raise AdapterError(f"{CONFIG}: task_head_pooling is {shown(pooling)}; it is one of pooler, first, mean")
    return pooling  # type: ignore[no-any-return]
