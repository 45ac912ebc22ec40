"""A base graph without its weights: what a bundle keeps of the base, so that its tasks can change without the base."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

#: A weight without a tensor -> its tensor; None where there is none.
Weights = Callable[[ir.Value], ir.TensorProtocol | None]


def outline(model: ir.Model) -> ir.Model:
    """A copy of a graph whose initializers are further inputs, behind its own, in their order."""
    copy = model.clone()
    for name, value in list(copy.graph.initializers.items()):
        del copy.graph.initializers[name]
        value.const_value = None
        copy.graph.inputs.append(value)
    return copy


def fill(model: ir.Model, inputs: int, weights: Weights) -> list[str]:
    """Turns the inputs of an outline that are weights into initializers again.

    Args:
        model: the outline; changed in place.
        inputs: how many of its inputs are the graph's own.
        weights: what finds them.

    Returns:
        the names of weights that are not there; they stay inputs.
    """
    missing = []
    for value in list(model.graph.inputs)[inputs:]:
        assert value.name is not None
        tensor = weights(value)
        if tensor is None:
            missing.append(value.name)
            continue
        model.graph.inputs.remove(value)
        value.const_value = tensor
        model.graph.register_initializer(value)
    return missing
