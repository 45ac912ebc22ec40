"""The base's class says what its feed-forwards' activation is, which MoE-PEFT writes into every configuration."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers.activations import ACT2FN

from eptx.errors import NotSupportedError
from eptx.exporter.adapters.checkpoint import CONFIG
from eptx.exporter.bases.names import aliases
from eptx.exporter.bases.weights.model import empty_model, read_config
from eptx.exporter.methods.mixlora.adapter import MixLoraAdapter

_OF = ("transformers.activations", "torch.nn.modules.activation")


def check_activation(adapter: MixLoraAdapter, base: Path, class_name: str) -> None:
    """Refuses experts with another activation than the base's.

    Args:
        adapter: as it was read.
        base: the base's transformers folder.
        class_name: the class of transformers that was trained.

    Raises:
        NotSupportedError: it is another one, or the class does not show its own.
        BaseModelError: there is no such class, or the configuration makes none.
    """
    model = empty_model(base, read_config(base), class_name)
    modules, prefix = dict(model.named_modules()), str(getattr(model, "base_model_prefix", "") or "")
    name = next(name for name, own in adapter.modules.items() if own.gate is not None)
    parent = name.rpartition(".")[0]
    found = next((modules[alias] for alias in aliases(parent, prefix) if alias in modules), None)
    own = [layer for layer in found.children() if type(layer).__module__ in _OF] if found is not None else []
    x = torch.linspace(-8, 8, 257)
    if adapter.act_fn not in ACT2FN or not any(_same(layer, ACT2FN[adapter.act_fn], x) for layer in own):
        names = ", ".join(type(layer).__name__ for layer in own) or "none that its class shows"
        raise NotSupportedError(
            f"{CONFIG}: act_fn={adapter.act_fn!r} is not supported: {parent} of the base has another activation "
            f"({names}), and eptx runs the experts with the base's: train without act_fn"
        )


def _same(layer: nn.Module, other: nn.Module, x: torch.Tensor) -> bool:
    return bool(torch.allclose(layer(x), other(x), rtol=0, atol=1e-6))
