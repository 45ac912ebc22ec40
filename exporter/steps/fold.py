"""Folding one task into weights: of a graph, or of the base's files before anything is made of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from eptx._one_line import some
from eptx.errors import AdapterError, BaseModelError, NotSupportedError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.changes import TensorChange, Whole
from eptx.exporter.adapters.widths import check_widths
from eptx.exporter.bases.names import aliases
from eptx.exporter.bases.weights.checkpoint import BaseCheckpoint, weight_files
from eptx.exporter.bases.weights.model import base_prefix, read_config
from eptx.exporter.methods.method import method_of
from eptx.exporter.options import ExportOptions
from eptx.files.strict_json import dump_json
from eptx.progress import step

_TIED = ("lm_head.weight", "model.embed_tokens.weight")


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
        NotSupportedError: a module's weight is another one's too.
    """
    checkpoint = BaseCheckpoint(base)
    config = read_config(base)
    modules = _tensors(adapter, checkpoint, config)
    whole = _whole(adapter, checkpoint, config, options)
    shifts = _shifts(adapter, checkpoint, modules, options)
    target.mkdir()
    for name in _small_files(base):
        shutil.copyfile(base / name, target / name)
    (target / "config.json").write_bytes(dump_json({**config, "dtype": "float32"}))
    with step("fold the task into the weights"):
        for path in weight_files(base):
            names = [name for name in checkpoint if checkpoint.file(name) == path]
            tensors = {name: np.ascontiguousarray(checkpoint.array(name), dtype=np.float32) for name in names}
            for name in tensors.keys() & modules.keys():
                folded = fold(adapter, modules[name], tensors[name].astype(np.float64), options)
                tensors[name] = np.ascontiguousarray(folded, dtype=np.float32)
            for name in tensors.keys() & shifts.keys():
                tensors[name] = np.asarray(tensors[name] + shifts[name], dtype=np.float32)
            for name in tensors.keys() & whole.keys():
                tensors[name] = np.ascontiguousarray(whole.pop(name).apply(tensors[name]), dtype=np.float32)
            save_file(tensors, target / path.name, metadata={"format": "pt"})
    return target


def _tensors(adapter: Adapter, checkpoint: BaseCheckpoint, config: dict[str, Any]) -> dict[str, str]:
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
    if config.get("tie_word_embeddings") and any(name in found for name in _TIED):
        raise NotSupportedError(
            "a fold into lm_head would change the embeddings, which share its weight: use conditioned"
        )
    return found


def _shifts(
    adapter: Adapter, checkpoint: BaseCheckpoint, modules: Mapping[str, str], options: ExportOptions
) -> dict[str, np.ndarray]:
    """Bias of the folder -> what the task adds to it."""
    method, task = method_of(adapter.method), adapter.tasks.index(options.folded_task(adapter.tasks))
    choice, found = method.choice(adapter, task, options), {}
    for name, module in modules.items():
        shift = method.shift(adapter, module, partial(checkpoint.array, name), choice)
        bias = f"{name.removesuffix('.weight')}.bias"
        if shift is not None and bias not in checkpoint:
            raise NotSupportedError(
                f"the adapter adds a bias to {module}, and the base has none: use --mode conditioned"
            )
        if shift is not None:
            found[bias] = shift
    return found


def _shape(checkpoint: BaseCheckpoint, name: str) -> tuple[int, int]:
    rows, columns = checkpoint.shape(name)
    return rows, columns


def _whole(
    adapter: Adapter, checkpoint: BaseCheckpoint, config: dict[str, Any], options: ExportOptions
) -> dict[str, TensorChange]:
    """Tensor of the folder -> what the task changes of it."""
    found: dict[str, TensorChange] = {}
    for name, change in adapter.changes.get(options.folded_task(adapter.tasks), {}).items():
        stored = [alias for alias in aliases(name, base_prefix(config)) if alias in checkpoint]
        if not stored:
            raise BaseModelError(f"the adapter brings {name}, which the base folder does not have")
        wrong = change.misfit(checkpoint.shape(stored[0]))
        if isinstance(change, Whole) and checkpoint.shape(stored[0]) != change.array.shape:
            wrong = f"is {list(change.array.shape)} in the adapter, {list(checkpoint.shape(stored[0]))} in the base"
        if wrong is not None:
            raise AdapterError(f"{name} {wrong}")
        found[stored[0]] = change
    if config.get("tie_word_embeddings") and any(name in found for name in _TIED):
        raise NotSupportedError("the base's lm_head and embeddings share a weight, and the adapter brings one of them")
    return found


def _small_files(folder: Path) -> Iterable[str]:
    """What is beside the weights: the configuration, the tokenizer, the index."""
    known = ("*.json", "*.jinja", "*.model", "*.txt")
    return sorted({path.name for pattern in known for path in folder.glob(pattern) if path.is_file()})
