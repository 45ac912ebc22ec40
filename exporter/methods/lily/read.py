"""Reads Lily adapters as PEFT saves them: every layer with its tensors, also those that it shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.exporter.adapters.checkpoint import (
    AGAIN,
    CONFIG,
    Checkpoint,
    ReadOptions,
    number,
    refuse_rest,
    refuse_unknown,
    take,
)
from eptx.exporter.methods.lily.adapter import LilyAdapter, LilyModule
from eptx.exporter.methods.one_folder import check_shapes
from eptx.exporter.methods.routed import read_routed

#: What the tensors say anyway, or only training asks for.
_KNOWN = ("r", "num_B", "scaling", "stride_A", "init_weights")
_TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")


def matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    """PEFT's own ``peft_type``."""
    return config.get("peft_type") == "LILY"


def read(checkpoints: Sequence[Checkpoint], options: ReadOptions) -> LilyAdapter:
    """The Lily adapter of one folder.

    Raises:
        AdapterError: tensors are missing, extra, or do not fit each other or the configuration.
        NotSupportedError: a setting that eptx does not know, by name.
        UsageError: several folders were given.
    """
    for checkpoint in checkpoints:
        refuse_unknown(checkpoint.config, (*_KNOWN, *_TARGETS))
    return read_routed(LilyAdapter, "Lily", checkpoints, options, "lily_", _module)


def _module(name: str, parts: dict[str, np.ndarray], config: Mapping[str, Any]) -> LilyModule:
    a, b, router = (take(parts, name, f"lily_{key}.weight", 2) for key in ("A", "B", "router"))
    refuse_rest(parts, name)
    rank, count, scale = int(number(config, "r")), int(number(config, "num_B")), number(config, "scaling", default=1.0)
    wanted = (
        ("lily_A.weight", a, (rank, a.shape[1])),
        ("lily_B.weight", b, (count * rank, b.shape[1])),
        ("lily_router.weight", router, (count, rank)),
    )
    check_shapes(name, wanted, by=f"by {CONFIG}", todo=AGAIN)
    return LilyModule(a, b.reshape(count, rank, -1), router, float(scale))
