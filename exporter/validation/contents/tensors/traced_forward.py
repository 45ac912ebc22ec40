"""Traces one tiny forward of the trained model: the tensors it uses and computes, and each layer's window."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from eptx.bundle import TensorSpec
from eptx.exporter.validation.base.example import example
from eptx.exporter.validation.contents.tensors.derived import Derived, used_by

_LENGTH = 5
#: A window that has an effect on so short a text.
_WINDOW = 2


@dataclass
class Trace:
    """The trace of one forward.

    Attributes:
        used: ids of the parameters and float buffers that an output depends on.
        made: the tensors that were computed from those alone, with the ids of their sources.
        rows: id of an embedding's weight -> the rows that were read.
        windowed: layer -> whether its causal attention saw only the last `_WINDOW` tokens.
    """

    used: set[int] = field(default_factory=set)
    made: list[tuple[Tensor, frozenset[int]]] = field(default_factory=list)
    rows: dict[int, set[int]] = field(default_factory=dict)
    windowed: dict[int, bool] = field(default_factory=dict)


def trace_forward(base: Any, given: Collection[TensorSpec], returned: Collection[str]) -> Trace:
    """Runs the model without its adapter on a few tokens, an image, or some sound.

    Args:
        base: the transformers model, with or without adapted layers; nothing of it changes.
        given: the inputs of the bundle's graph.
        returned: their outputs; if the model has none of them, all of its outputs count.

    Raises:
        ValueError: the model does not run on these.
    """
    trace = Trace()
    leaves = [*base.parameters(), *(buffer for buffer in base.buffers() if buffer.is_floating_point())]
    with ExitStack() as stack:
        for change in (_evaluating, _without_adapter, _eager, _short_window):
            stack.enter_context(change(base))
        stack.enter_context(_grads(leaves))
        for module in base.modules():
            if isinstance(module, nn.Embedding):
                stack.callback(module.register_forward_pre_hook(_rows_into(trace)).remove)
            elif getattr(module, "layer_idx", None) is not None and hasattr(module, "scaling"):
                stack.callback(module.register_forward_pre_hook(_mask_into(trace), with_kwargs=True).remove)
        derived = stack.enter_context(Derived(leaves))
        output = dict(base(**example(base, given, torch.arange(_LENGTH) + 5)))
        counted = {name: value for name, value in output.items() if name in returned} or output
        trace.used = used_by(leaf for leaf in tree_leaves(counted) if isinstance(leaf, Tensor))
        trace.made = derived.made
    return trace


def _rows_into(trace: Trace) -> Any:
    def hook(module: nn.Embedding, args: tuple[Any, ...]) -> None:
        if args:
            trace.rows.setdefault(id(module.weight), set()).update(args[0].flatten().tolist())

    return hook


def _mask_into(trace: Trace) -> Any:
    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mask = kwargs.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 4:
            last = mask[0, 0, -1]
            visible = last if last.dtype == torch.bool else last == 0
            trace.windowed[int(module.layer_idx)] = int(visible.sum()) == _WINDOW

    return hook


@contextmanager
def _evaluating(base: Any) -> Iterator[None]:
    training = base.training
    base.eval()
    try:
        yield
    finally:
        base.train(training)


@contextmanager
def _without_adapter(base: Any) -> Iterator[None]:
    """Every adapted layer computes what the base's layer computes, with any tuner."""
    layers = [module for module in base.modules() if isinstance(getattr(module, "base_layer", None), nn.Module)]
    for layer in layers:
        layer.forward = _of_base(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _of_base(layer: Any) -> Any:
    return lambda *args, **kwargs: layer.base_layer(*args, **kwargs)


@contextmanager
def _eager(base: Any) -> Iterator[None]:
    """Attention gets its whole mask as a tensor."""
    before = base.config._attn_implementation
    if before == "eager":
        yield
        return
    base.set_attn_implementation("eager")
    try:
        yield
    finally:
        base.set_attn_implementation(before)


@contextmanager
def _short_window(base: Any) -> Iterator[None]:
    """Layers with a window get a tiny one; the model's code decides which layers those are."""
    window = getattr(base.config, "sliding_window", None)
    if not window:
        yield
        return
    base.config.sliding_window = _WINDOW
    try:
        yield
    finally:
        base.config.sliding_window = window


@contextmanager
def _grads(leaves: list[Tensor]) -> Iterator[None]:
    before = [leaf.requires_grad for leaf in leaves]
    for leaf in leaves:
        leaf.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for leaf, needed in zip(leaves, before, strict=True):
            leaf.requires_grad_(needed)
