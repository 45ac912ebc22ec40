"""PEFT says on the base what each task makes of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

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
    saved: dict[str, Mapping[str, np.ndarray]] = {}
    shapes: dict[str, tuple[int, int]] = {}
    for task, checkpoint in adapter.checkpoints.items():
        own = adapter.saved.get(task, {})
        model, _ = load_model(base, read_config(base), class_name, Saved((task,), {task: own}))
        by_task[task], changed = {}, dict(own)
        for name, layer in put_on(model, checkpoint, adapter.shared.get(task, {})).items():
            if is_linear(layer):
                found = linear(name, layer)
                update = smallest(found)
                if update is not None:
                    by_task[task][name], shapes[name] = update, found.base.shape
            else:
                arrays = tensors(name, layer)
                changed |= {f"{name}.{key}": new for key, (old, new) in arrays.items() if not np.array_equal(old, new)}
        saved[task] = changed
    return replace(adapter, by_task=by_task, saved={task: own for task, own in saved.items() if own}, shapes=shapes)
