"""Reads TuckA adapters, as the released code saves them and as eptx's own training does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eptx.errors import AdapterError, UsageError
from eptx.exporter.adapters.adapter import natural_key
from eptx.exporter.adapters.checkpoint import (
    CONFIG,
    WEIGHTS,
    Checkpoint,
    ReadOptions,
    group_by_module,
    number,
    refuse_options,
    refuse_rest,
    take,
)
from eptx.exporter.methods.one_folder import common_fields, tasks_by_heads
from eptx.exporter.methods.tucka.adapter import TuckaAdapter, TuckaModule


def matches(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Both writers say so in ``peft_type``."""
    return config.get("peft_type") == "TUCKA"


def read(checkpoints: Sequence[Checkpoint], options: ReadOptions) -> TuckaAdapter:
    """The TuckA adapter of one folder.

    Raises:
        AdapterError: tensors are missing, extra, or do not fit each other or the configuration.
        UsageError: several folders were given.
    """
    if len(checkpoints) != 1:
        raise UsageError("a TuckA adapter holds all its tasks: give one adapter folder")
    checkpoint = checkpoints[0]
    config = checkpoint.config
    refuse_options(config, {"bias": ("none", None)})
    grouped = group_by_module(checkpoint.tensors, "tucka_")
    names = sorted(grouped, key=natural_key)
    centroids = {name: take(grouped[name], name, "tucka_ec", 2) for name in names if "tucka_ec" in grouped[name]}
    modules = {name: _module(name, dict(grouped[name]), config) for name in names}
    router = _router(centroids, config)
    adapter = TuckaAdapter(
        **common_fields(checkpoint, tasks_by_heads(checkpoint, options)),
        modules=modules,
        alpha=float(number(config, "alpha")),
        router=router,
        centroids=centroids[router],
    )
    _check_router(adapter)
    return adapter


def _module(name: str, parts: dict[str, np.ndarray], config: Mapping[str, Any]) -> TuckaModule:
    module = TuckaModule(
        u=take(parts, name, "tucka_u", 2), g=take(parts, name, "tucka_g", 4), c=take(parts, name, "tucka_c", 2)
    )
    refuse_rest(parts, name)
    rank = module.u.shape[1]
    expected = (number(config, "k"), number(config, "p"), rank, rank)
    if number(config, "r") != rank:
        raise AdapterError(f"{WEIGHTS}: {name}.tucka_u has rank {rank}; {CONFIG} says r={config['r']}")
    if module.g.shape != expected:
        raise AdapterError(f"{WEIGHTS}: {name}.tucka_g has shape {list(module.g.shape)}, expected {list(expected)}")
    if module.c.shape != (number(config, "t"), expected[1]):
        raise AdapterError(f"{WEIGHTS}: {name}.tucka_c has shape {list(module.c.shape)}, expected [t, p] of {CONFIG}")
    if not all(_norm(array) > 0 for array in (module.u, module.c, *module.g)):
        raise AdapterError(f"{WEIGHTS}: {name} has a factor that is all zeros (or huge), which cannot be normalized")
    return module


def _norm(array: np.ndarray) -> float:
    """What the factor is divided by, where it is a float64: zero also for numbers whose squares vanish."""
    with np.errstate(over="ignore", under="ignore"):
        norm = np.sqrt(np.sum(np.square(array, dtype=np.float64)))
    return float(norm) if np.isfinite(norm) else 0.0


def _router(centroids: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> str:
    """The module that ``router_name`` names, else the one that has centroids."""
    named = config.get("router_name") or ""
    if not isinstance(named, str):
        raise AdapterError(f"{CONFIG}: router_name must be a module's name, found {named!r}")
    found = [name for name in centroids if not named or name == named or name.endswith(f".{named}")]
    if len(centroids) == 1 and not found:
        raise AdapterError(f"{CONFIG}: router_name is {named!r}, but {next(iter(centroids))} has the centroids")
    if len(found) != 1:
        raise AdapterError(f"{WEIGHTS}: expected tucka_ec at one router module, found it at {len(found)}")
    return found[0]


def _check_router(adapter: TuckaAdapter) -> None:
    expected = (adapter.groups * adapter.experts, adapter.modules[adapter.router].u.shape[0])
    if adapter.centroids.shape != expected:
        raise AdapterError(
            f"{WEIGHTS}: {adapter.router}.tucka_ec has shape {list(adapter.centroids.shape)}, expected {list(expected)}"
        )
