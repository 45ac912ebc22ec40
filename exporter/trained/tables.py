"""The embeddings that adapters change, row by row as PEFT's own layers look them up, and stacks of experts' weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from peft.tuners.lora.layer import ParamWrapper
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from eptx.exporter.trained.host import Host

__all__ = ["adapted_stacks", "changed_tables", "changed_tensors", "table_of", "tokens_of", "words_of"]


def changed_tables(host: Host) -> dict[str, nn.Module]:
    """The embeddings that PEFT has wrapped, by their names in the model."""
    found: dict[str, nn.Module] = {}
    for name, module in host.model.named_modules():
        wraps = isinstance(module, AuxiliaryTrainingWrapper) or isinstance(
            getattr(module, "base_layer", None), nn.Module
        )
        inside = any(name.startswith(f"{other}.") for other in found)
        if wraps and not inside and isinstance(_innermost(module), nn.Embedding):
            found[name] = module
    return found


def changed_tensors(host: Host) -> set[str]:
    """The names of the tensors that PEFT adds an adapter's factors to."""
    found = set()
    for name, module in host.model.named_modules():
        if isinstance(getattr(module, "base_layer", None), nn.Module):
            leaf = module.parameter_name if isinstance(module, ParamWrapper) else "weight"
            found |= {f"{_plain(name)}.{leaf}", f"{_plain(name)}.bias"}
    return found


def adapted_stacks(host: Host) -> dict[str, np.ndarray]:
    """The experts' weights that the active adapter's factors are added to, as PEFT merges them, float32."""
    found = {}
    for name, module in host.model.named_modules():
        if not isinstance(module, ParamWrapper):
            continue
        layer: Any = module  # PEFT's methods have no types
        with torch.no_grad():
            array = layer.get_param().clone()
            for each in layer.active_adapters:
                array += layer.get_delta_weight(each) if each in layer.scaling else 0
        if array.ndim > 2:
            found[f"{_plain(name)}.{layer.parameter_name}"] = array.float().numpy()
    return found


def table_of(host: Host, name: str, task: int | None) -> np.ndarray:
    """All rows of an embedding with the adapter of a task, or with none, float32 [rows, width]."""
    module = host.model.get_submodule(name)
    with torch.no_grad(), host.on(task):
        rows = torch.arange(_length(module, host.adapters.get(-1 if task is None else task)))
        array: np.ndarray = module(rows).float().numpy()
    return array


def words_of(host: Host) -> int | None:
    """How many tokens a model reads; None if it has no table of them."""
    try:
        table: Any = host.model.get_input_embeddings()
    except NotImplementedError:  # a model of images or sound
        return None
    inner = None if table is None else _innermost(table)
    return len(inner.weight) if isinstance(inner, nn.Embedding) else None


def tokens_of(host: Host) -> int | None:
    """How many tokens a model knows; None if it gives none."""
    if not hasattr(host.model, "get_output_embeddings") or host.model.get_output_embeddings() is None:
        return None
    return words_of(host)


def _innermost(module: Any) -> Any:
    """What PEFT's layers are wrapped around."""
    inner = next((key for key in ("original_module", "token_adapter", "base_layer") if _has(module, key)), None)
    return module if inner is None else _innermost(module._modules[inner])


def _has(module: Any, key: str) -> bool:
    return isinstance(module._modules.get(key), nn.Module)


def _length(module: Any, adapter: str | None) -> int:
    own = module._modules.get("modules_to_save")
    if own is not None and adapter in own:
        return len(own[adapter].weight)
    return len(_innermost(module).weight)


def _plain(name: str) -> str:
    return name.replace(".base_layer", "").removesuffix(".token_adapter")
