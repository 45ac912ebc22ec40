"""Finding an adapter's modules in a PyTorch model, whatever transformers calls them today."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from eptx.errors import BaseModelError
from eptx.exporter.adapter import Adapter
from eptx.exporter.base._names import aliases, some
from eptx.exporter.base.checkpoint import BaseCheckpoint


def torch_names(model: Any, folder: Path, adapter: Adapter) -> dict[str, str]:
    """The name in ``model`` of every adapted module.

    By name, with the architecture's prefix added or taken away; else by content: transformers 5 renamed
    modules of some models, but the base's files keep the names that the adapter knows, so the tensor of that
    name in the files equals the weight of exactly one layer.

    Raises:
        BaseModelError: a module is not found, found twice, not linear, or of another width.
    """
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    checkpoint = BaseCheckpoint(folder)
    found: dict[str, str] = {}
    missing = []
    for module in adapter.module_names:
        places = _places(module, str(getattr(model, "base_model_prefix", "") or ""), linears, checkpoint)
        if len(places) != 1:
            missing.append(module if not places else f"{module} (found as {some(places)})")
            continue
        found[module] = places[0]
        _check_widths(adapter, module, linears[places[0]])
    if missing:
        raise BaseModelError(f"{type(model).__name__} has not exactly one linear layer for {some(missing)}")
    if len(set(found.values())) != len(found):
        raise BaseModelError("two adapted modules are the same layer of the base model")
    return found


def _places(module: str, prefix: str, linears: dict[str, nn.Linear], checkpoint: BaseCheckpoint) -> list[str]:
    names = aliases(module, prefix)
    named = [name for name in names if name in linears]
    if named:
        return named
    stored = next((f"{name}.weight" for name in names if f"{name}.weight" in checkpoint), None)
    if stored is None:
        return []
    weight = torch.from_numpy(np.asarray(checkpoint.array(stored)))
    if weight.ndim != 2:
        return []
    return [name for name, linear in linears.items() if torch.equal(linear.weight.detach().to(weight.dtype), weight)]


def _check_widths(adapter: Adapter, module: str, linear: nn.Linear) -> None:
    widths = adapter.widths(module)
    if widths.in_features != linear.in_features:
        raise BaseModelError(
            f"the adapter's {module} reads {widths.in_features} features, the base's {linear.in_features}"
        )
    if widths.out_features is not None and linear.out_features not in widths.out_features:
        raise BaseModelError(f"the adapter's {module} does not fit the {linear.out_features} outputs of the base's")


def exactly(names: Sequence[str]) -> str:
    """A regular expression for PEFT's ``target_modules`` that matches these whole names and nothing else."""
    return "|".join(re.escape(name) for name in names)
