"""PEFT says on the base what each task makes of each layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from eptx.exporter.adapters.changes import Rows, TensorChange, Whole
from eptx.exporter.adapters.updates import LinearUpdate
from eptx.exporter.bases.weights.model import load_model, read_config
from eptx.exporter.bases.weights.whole import Saved
from eptx.exporter.methods.peft.adapter import FullUpdate, PeftAdapter
from eptx.exporter.methods.peft.factors import smallest
from eptx.exporter.methods.peft.layers import is_linear, linear, tensors
from eptx.exporter.methods.peft.on_base import put_on


def complete(adapter: PeftAdapter, base: Path, class_name: str) -> PeftAdapter:
    """The adapter with what it makes of the base's layers.

    Args:
        adapter: as it was read.
        base: the base's transformers folder.
        class_name: the class of transformers that was trained.

    Raises:
        AdapterError: PEFT cannot put it on the base.
        NotSupportedError: a layer is of a kind that eptx does not know, or no linear function of its input.
        BaseModelError: the base's weights are damaged, or not those of the class.
    """
    by_task: dict[str, dict[str, LinearUpdate | FullUpdate]] = {}
    changes: dict[str, dict[str, TensorChange]] = {}
    shapes: dict[str, tuple[int, int]] = {}
    for task, checkpoint in adapter.checkpoints.items():
        by_task[task], changes[task] = {}, dict(adapter.changes.get(task, {}))
        if not checkpoint.tensors:
            continue
        model, _ = load_model(base, read_config(base), class_name, Saved((task,), {task: changes[task]}))
        for name, layer in put_on(model, checkpoint).items():
            if is_linear(layer):
                found = linear(name, layer)
                update = smallest(found)
                if update is not None:
                    by_task[task][name], shapes[name] = update, found.base.shape
            else:
                found_here = {f"{name}.{key}": _change(*arrays) for key, arrays in tensors(name, layer).items()}
                changes[task] |= {key: change for key, change in found_here.items() if change is not None}
    return replace(adapter, by_task=by_task, changes=changes, shapes=shapes)


def _change(base: np.ndarray, adapted: np.ndarray) -> TensorChange | None:
    """What became of a tensor: some rows of it, or all of it; None for nothing."""
    rows = np.flatnonzero((base != adapted).reshape(len(base), -1).any(1))
    if not len(rows):
        return None
    return Whole(adapted) if len(rows) == len(base) else Rows(rows, adapted[rows])
