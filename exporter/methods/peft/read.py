"""Reads adapters of PEFT's other methods: one folder, or several on one base, each a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eptx.errors import NotSupportedError
from eptx.exporter.adapters.adapter import name_tasks
from eptx.exporter.adapters.checkpoint import CONFIG, Checkpoint, OwnTensors, ReadOptions, combine
from eptx.exporter.adapters.heads import heads_of
from eptx.exporter.methods.lora.settings import check
from eptx.exporter.methods.peft.adapter import PeftAdapter
from eptx.exporter.methods.peft.types import TUNERS


def matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether PEFT knows the ``peft_type``."""
    kind = config.get("peft_type")
    return isinstance(kind, str) and kind in TUNERS


def own_tensors(config: Mapping[str, Any]) -> OwnTensors:
    """Which tensors are the tuner's."""
    tuner = TUNERS.get(str(config.get("peft_type")))
    return OwnTensors() if tuner is None or not tuner.part else OwnTensors((tuner.part,), tuner.integers)


def read(checkpoints: Sequence[Checkpoint], options: ReadOptions) -> PeftAdapter:
    """Adapters that share a base, each a task.

    Raises:
        AdapterError: heads that belong to no task, or do not fit each other.
        NotSupportedError: a method that is not exported, by name.
    """
    for checkpoint in checkpoints:
        _check(checkpoint)

    own = [checkpoint.name for checkpoint in checkpoints]
    names = name_tasks(len(checkpoints), options.tasks, own if len(checkpoints) > 1 else None)
    pairs = list(zip(names, checkpoints, strict=True))
    return PeftAdapter(
        tasks=names,
        heads=heads_of(names, own, [checkpoint.heads for checkpoint in checkpoints]),
        fingerprint=combine([checkpoint.fingerprint for checkpoint in checkpoints]),
        changes={name: each.whole for name, each in pairs if each.saved},
        trained_as=tuple(checkpoint.trained_as for checkpoint in checkpoints),
        checkpoints=dict(pairs),
    )


def _check(checkpoint: Checkpoint) -> None:
    tuner = TUNERS[str(checkpoint.config["peft_type"])]
    if checkpoint.config["peft_type"] == "LORA":
        check(checkpoint.config, checkpoint.name)
    if tuner.refusal is not None:
        kind = checkpoint.config["peft_type"]
        raise NotSupportedError(f"{checkpoint.name}/{CONFIG}: peft_type {kind} ({tuner.title}): {tuner.refusal}")
