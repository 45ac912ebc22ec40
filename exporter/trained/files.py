"""Adapter folders as PEFT and the released codes save them: the configuration and the tensors, as they are."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file
from torch import Tensor

from eptx._one_line import one_line
from eptx.errors import AdapterError, UsageError
from eptx.files.strict_json import read_json_object

CONFIG, WEIGHTS, HEADS = "adapter_config.json", "adapter_model.safetensors", "task_heads.safetensors"
#: What PEFT puts before the name of every module of the model that it wraps.
PREFIX = "base_model.model."
_KERNELS = ".lora_expert_kernels."
_GATES = ".lora_task_embedding.weight"

Kind = Literal["ept", "tucka", "lora"]


@dataclass(frozen=True)
class AdapterFiles:
    """One adapter folder.

    Attributes:
        folder: where it is.
        config: ``adapter_config.json``.
        tensors: those of ``adapter_model.safetensors`` by their names.
        heads: those of ``task_heads.safetensors``, which eptx's training saves beside it; None where there is none.
        kind: whose adapter it is. The released EPT calls itself LORA; its expert kernels tell.
    """

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    heads: Mapping[str, Tensor] | None

    @property
    def kind(self) -> Kind:
        if any(_KERNELS in name for name in self.tensors):
            return "ept"
        return "tucka" if self.config.get("peft_type") == "TUCKA" else "lora"

    def shapes(self, ending: str) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors whose names end so, by what stands before, without PEFT's prefix."""
        return {
            name.removeprefix(PREFIX).removesuffix(ending): tuple(tensor.shape)
            for name, tensor in self.tensors.items()
            if name.endswith(ending)
        }


def read_files(folders: Sequence[Path]) -> list[AdapterFiles]:
    """Reads adapter folders.

    Raises:
        AdapterError: a file is missing or damaged.
        UsageError: they are of different methods, or several where one holds all tasks.
    """
    read = [_read(folder) for folder in folders]
    kinds = sorted({files.kind for files in read})
    if len(kinds) > 1:
        raise UsageError(f"the adapters are of different methods: {', '.join(kinds)}")
    if len(read) > 1 and kinds != ["lora"]:
        raise UsageError(f"a folder of {kinds[0]} holds all tasks: give one adapter folder")
    return read


def _read(folder: Path) -> AdapterFiles:
    if not folder.is_dir():
        raise AdapterError(f"{folder}: no such adapter folder")
    missing = [name for name in (WEIGHTS, CONFIG) if not (folder / name).exists()]
    if missing:
        raise AdapterError(f"{folder}: {missing[0]} is missing")
    config = read_json_object(folder / CONFIG, error=AdapterError)
    heads = _tensors(folder / HEADS) if (folder / HEADS).exists() else None
    return AdapterFiles(folder, config, _tensors(folder / WEIGHTS), heads)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # the library has no common class
        raise AdapterError(f"{path}: cannot be read: {one_line(error)}") from None


def name_tasks(files: Sequence[AdapterFiles], given: Sequence[str] | None) -> tuple[str, ...]:
    """The tasks by id, named by who gives names, else by the adapter's own files; the unnamed rest are task<i>.

    EPT embeds every task, so its tensors count them. Several LoRA folders are a task each, called as the folders are.
    TuckA's route knows no task: there are as many as are named, else as there are heads, else one.
    """
    first = files[0]
    saved = list(first.config.get("tasks") or []) if first.kind != "lora" else []
    if first.kind == "ept":
        count = max((shape[0] for shape in first.shapes(_GATES).values()), default=1)
    elif first.kind == "lora":
        count, saved = len(files), [each.folder.name for each in files] if len(files) > 1 else []
    else:
        saved = saved or list(head_tasks(first)) or ["task0"]
        count = len(given or saved)
    names = list(given or saved)
    if len(names) > count:
        raise UsageError(f"{len(names)} tasks are named; the adapter has {count}")
    return tuple(names + [f"task{index}" for index in range(len(names), count)])


def head_tasks(files: AdapterFiles) -> tuple[str, ...]:
    """The tasks that have a head of their own in ``task_heads.safetensors``."""
    return tuple(name.removesuffix(".weight") for name in files.heads or () if name.endswith(".weight"))


def top_k_of(files: AdapterFiles, given: int | None) -> int:
    """How many experts a task of an EPT adapter uses; released files do not say it.

    Raises:
        UsageError: nobody says it, or two say different things.
    """
    saved = files.config.get("top_k")
    if given is not None and saved is not None and given != saved:
        raise UsageError(f"--top-k {given} contradicts {CONFIG}, which says {saved}")
    top_k = given if given is not None else saved
    if type(top_k) is not int or not 1 <= top_k <= sys.maxsize:
        raise UsageError(f"{CONFIG} does not say how many experts a task uses: give --top-k")
    return top_k
