"""The base's class says what the factors of ``target_parameters`` are of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from eptx.exporter.bases.weights.model import empty_model, read_config
from eptx.exporter.methods.lora.adapter import LoraAdapter, joined, of_one_base
from eptx.exporter.methods.lora.parameters import targets_in
from eptx.exporter.methods.lora.read import of_folder


def complete(adapter: LoraAdapter, base: Path, class_name: str) -> LoraAdapter:
    """The adapter with all of its factors in their place.

    Args:
        adapter: as it was read.
        base: the base's transformers folder.
        class_name: the class of transformers that was trained.

    Raises:
        AdapterError: the factors do not fit the class.
        BaseModelError, NotSupportedError: there is no such class, or the configuration makes none.
    """
    model = empty_model(base, read_config(base), class_name)
    prefix = str(getattr(model, "base_model_prefix", "") or "")
    parts = []
    for task, checkpoint in adapter.unplaced.items():
        targets = targets_in(checkpoint.config, list(checkpoint.tensors), model, prefix)
        parts.append(of_folder(task, checkpoint, targets))
    placed = joined(parts)
    by_task, changes = {**adapter.by_task, **placed.by_task}, {**adapter.changes, **placed.changes}
    return of_one_base(replace(adapter, by_task=by_task, changes=changes, unplaced={}))
