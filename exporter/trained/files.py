"""Adapter folders as PEFT and the released codes save them: the configuration and the tensors, as they are."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft import load_peft_weights
from safetensors.torch import load_file
from torch import Tensor

from eptx._one_line import one_line
from eptx.errors import AdapterError
from eptx.files.strict_json import read_json_object

CONFIG, WEIGHTS, HEADS = "adapter_config.json", "adapter_model.safetensors", "task_heads.safetensors"
#: What older versions of PEFT save in the place of the weights.
PICKLE = "adapter_model.bin"
#: What PEFT puts before the name of every module of the model that it wraps.
PREFIX = "base_model.model."
#: What compiling, sharding and checkpointing put into names.
_AROUND = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


@dataclass(frozen=True)
class AdapterFiles:
    """One adapter folder.

    Attributes:
        folder: where it is.
        config: ``adapter_config.json``.
        tensors: those of ``adapter_model.safetensors`` by their names.
        heads: those of ``task_heads.safetensors``, which eptx's training saves beside it; None where there is none.
    """

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    heads: Mapping[str, Tensor] | None

    def shapes(self, ending: str) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors whose names end so, by what stands before, without PEFT's prefix."""
        return {
            name.removeprefix(PREFIX).removesuffix(ending): tuple(tensor.shape)
            for name, tensor in self.tensors.items()
            if name.endswith(ending)
        }


def read_folder(folder: Path, *, allow_pickle: bool = False) -> AdapterFiles:
    """Reads an adapter folder.

    Args:
        folder: the folder.
        allow_pickle: whether PEFT may read `PICKLE`, with torch's ``weights_only`` loader, if there is nothing else.

    Raises:
        AdapterError: a file is missing or damaged.
    """
    if not folder.is_dir():
        raise AdapterError(f"{folder}: no such adapter folder")
    pickled = allow_pickle and not (folder / WEIGHTS).exists() and (folder / PICKLE).exists()
    missing = [name for name in (PICKLE if pickled else WEIGHTS, CONFIG) if not (folder / name).exists()]
    if missing:
        instead = f", and {PICKLE} is read with --allow-pickle only" if (folder / PICKLE).exists() else ""
        raise AdapterError(f"{folder}: {missing[0]} is missing{instead}")
    config = read_json_object(folder / CONFIG, error=AdapterError)
    heads = _tensors(folder / HEADS) if (folder / HEADS).exists() else None
    return AdapterFiles(folder, config, _pickled(folder) if pickled else _tensors(folder / WEIGHTS), heads)


def plainly_named(files: AdapterFiles, part: str, factors: Collection[str], vectors: Collection[str]) -> AdapterFiles:
    """The same folder with its tensors by the names that PEFT loads: with its prefix, without the adapter's name.

    On purpose the exporter's rule is not used, since it is checked.

    Args:
        files: as they are.
        part: how the names of its own tensors go on after the module's name.
        factors: see `Reference`.
        vectors: see `Reference`.

    Raises:
        AdapterError: two tensors have one name then.
    """
    named = re.compile(rf"\.(?:{'|'.join(factors)})\.(?!weight|bias|\d)([^.]+)")
    said = {match[1] for name in files.tensors if factors and (match := named.search(name))}
    found: dict[str, Tensor] = {}
    for name, tensor in files.tensors.items():
        words = [word for word in name.split(".") if word not in _AROUND]
        start = next((at + 2 for at in range(len(words)) if words[at : at + 2] == ["base_model", "model"]), 0)
        while words[start : start + 1] == ["module"]:
            start += 1
        if words[:1] == ["base_model"] and start == 0:
            new = ".".join(_unnamed(words, part, said, files.tensors))  # what all layers share
        else:
            new = PREFIX + ".".join(_unnamed(words[start:], part, said, files.tensors))
        if new.endswith(tuple(f".{vector}.weight" for vector in vectors)):
            new = new.removesuffix(".weight")
        if new in found:
            raise AdapterError(f"{files.folder / WEIGHTS}: has {new} twice")
        found[new] = tensor
    return replace(files, tensors=found)


def _unnamed(words: list[str], part: str, said: Collection[str], names: Collection[str]) -> list[str]:
    """A name's words without the adapter's."""
    if "modules_to_save" in words:
        at = words.index("modules_to_save")
        again = any(name.endswith(".".join(words[:at] + words[at + 1 :])) for name in names)
        return words if again or len(words) < at + 3 else words[:at] + words[at + 2 :]
    if "trainable_tokens_delta" in words:
        return words[: words.index("trainable_tokens_delta") + 1]
    own = [at for at, word in enumerate(words) if part and f".{word}".startswith(part)]
    after = words[own[0] + 1 :] if own else []
    return words[: own[0] + 1] + after[1:] if after and after[0] in said else words


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # the library has no common class
        raise AdapterError(f"{path}: cannot be read: {one_line(error)}") from None


def _pickled(folder: Path) -> dict[str, Tensor]:
    try:
        found: dict[str, Tensor] = load_peft_weights(str(folder), device="cpu")
    except Exception as error:  # damaged files raise any class
        raise AdapterError(f"{folder / PICKLE}: PEFT cannot read it: {one_line(error)}") from None
    return found


def head_tasks(files: AdapterFiles) -> tuple[str, ...]:
    """The tasks that have a head of their own in ``task_heads.safetensors``."""
    return tuple(name.removesuffix(".weight") for name in files.heads or () if name.endswith(".weight"))


def tasks_by_heads(files: AdapterFiles, given: Sequence[str] | None) -> tuple[int, list[str]]:
    """Of routers that know no task: as many as are named, else as there are heads, else one; and the saved names."""
    saved = list(files.config.get("tasks") or []) or list(head_tasks(files)) or ["task0"]
    return len(given or saved), saved
