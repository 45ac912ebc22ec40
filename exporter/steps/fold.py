"""Folding one task into weights: of a graph, or of the base's files before anything is made of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from eptx._one_line import some
from eptx.errors import AdapterError, BaseModelError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.changes import LowRank, TensorChange, Whole
from eptx.exporter.adapters.widths import check_widths
from eptx.exporter.bases.names import aliases
from eptx.exporter.bases.not_built import NotBuiltError
from eptx.exporter.bases.weights.checkpoint import weight_files
from eptx.exporter.bases.weights.model import base_prefix, read_config
from eptx.exporter.bases.weights.sharing import HEAD, SHARED, TABLE, TiedCheckpoint, with_shared
from eptx.exporter.bases.weights.sizes import tokens_of
from eptx.exporter.methods.method import method_of
from eptx.exporter.options import ExportOptions
from eptx.files.strict_json import dump_json
from eptx.progress import step


def fold(adapter: Adapter, module: str, weight: np.ndarray, options: ExportOptions) -> np.ndarray:
    """A module's weight [out, in] float64 with the task of a static export in it, for bases that call a router once.

    Raises:
        BaseModelError: the adapter does not fit the weight.
    """
    method, task = method_of(adapter.method), adapter.tasks.index(options.folded_task(adapter.tasks))
    return method.fold(adapter, module, weight, method.choice(adapter, task, options))


def fold_folder(adapter: Adapter, base: Path, target: Path, options: ExportOptions) -> Path:
    """Writes a transformers folder again with one task folded into its weights, all float32.

    That is what a quantizer must see: what it rounds is then the adapted weight.

    Args:
        adapter: the adapter.
        base: the transformers folder.
        target: where to write; it is made.
        options: of a static export.

    Returns:
        the target.

    Raises:
        BaseModelError: a module is not in the folder, or is of another shape.
        NotBuiltError: the folder holds a tensor that the task changes in parts.
        NotSupportedError: a module's weight is another one's too.
    """
    config = read_config(base)
    checkpoint = TiedCheckpoint(base, config)
    modules = _tensors(adapter, checkpoint, config)
    whole = _whole(adapter, checkpoint, config, options)
    untied = checkpoint.tied and (bool({TABLE, HEAD} & modules.keys()) or whole.get(TABLE) is not whole.get(HEAD))
    target.mkdir()
    for name in _small_files(base):
        shutil.copyfile(base / name, target / name)
    changed: dict[str, Any] = {"tie_word_embeddings": False} if untied else {}
    if TABLE in checkpoint:
        own = checkpoint.shape(TABLE)[0]
        tokens = tokens_of(options.folded_task(adapter.tasks), whole, _sized(checkpoint), own)
        changed |= {"vocab_size": tokens} if tokens != own else {}
    (target / "config.json").write_bytes(dump_json({**config, **changed, "dtype": "float32"}))
    with step("fold the task into the weights"):
        for path in weight_files(base):
            names = [name for name in checkpoint if checkpoint.file(name) == path]
            tensors = {name: checkpoint.array(name) for name in names if name != HEAD or untied or not checkpoint.tied}
            for name in tensors.keys() & whole.keys():
                tensors[name] = whole[name].apply(tensors[name])
            for name in tensors.keys() & modules.keys():
                tensors[name] = fold(adapter, modules[name], tensors[name].astype(np.float64), options)
            tensors = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in tensors.items()}
            save_file(tensors, target / path.name, metadata={"format": "pt"})
    return target


def _tensors(adapter: Adapter, checkpoint: TiedCheckpoint, config: dict[str, Any]) -> dict[str, str]:
    """Tensor of the folder -> adapted module."""
    found: dict[str, str] = {}
    missing = []
    for module in adapter.module_names:
        names = [f"{name}.weight" for name in aliases(module, base_prefix(config))]
        stored = [name for name in names if name in checkpoint and len(checkpoint.shape(name)) == 2]
        if stored:
            found[stored[0]] = module
        else:
            missing.append(module)
    if missing:
        count = f"{len(missing)} of {len(adapter.module_names)} adapted modules"
        raise BaseModelError(f"{count} are not found in the base folder: {some(missing)}")
    check_widths(adapter, {module: _shape(checkpoint, name) for name, module in found.items()})
    return found


def _shape(checkpoint: TiedCheckpoint, name: str) -> tuple[int, int]:
    rows, columns = checkpoint.shape(name)
    return rows, columns


def _whole(
    adapter: Adapter, checkpoint: TiedCheckpoint, config: dict[str, Any], options: ExportOptions
) -> dict[str, TensorChange]:
    """Tensor of the folder -> what the task changes of it; a head that shares the embeddings has a name of its own."""
    found: dict[str, TensorChange] = {}
    for name, change in adapter.changes.get(options.folded_task(adapter.tasks), {}).items():
        stored = [alias for alias in aliases(name, base_prefix(config)) if alias in checkpoint]
        if not stored and isinstance(change, LowRank):  # experts, which transformers stacks as it loads the folder
            raise NotBuiltError(f"the base folder holds {name} in parts, into which GenAI's builder takes no adapter")
        if not stored:
            raise BaseModelError(f"the adapter brings {name}, which the base folder does not have")
        found[stored[0]] = change
    lengths = {name: checkpoint.shape(name)[0] for name in checkpoint if checkpoint.shape(name)}
    found = with_shared(found, SHARED if checkpoint.tied else {}, lengths)
    for name, change in found.items():
        shape = checkpoint.shape(name)
        wrong = change.misfit(shape)
        if isinstance(change, Whole) and shape != change.array.shape and name not in _sized(checkpoint):
            wrong = f"is {list(change.array.shape)} in the adapter, {list(shape)} in the base"
        if wrong is not None:
            raise AdapterError(f"{name} {wrong}")
    return found


def _sized(checkpoint: TiedCheckpoint) -> list[str]:
    """The tensors that grow with a decoder's vocabulary."""
    return [name for name in (TABLE, HEAD) if name in checkpoint]


def _small_files(folder: Path) -> Iterable[str]:
    """What is beside the weights: the configuration, the tokenizer, the index."""
    known = ("*.json", "*.jinja", "*.model", "*.txt")
    return sorted({path.name for pattern in known for path in folder.glob(pattern) if path.is_file()})
