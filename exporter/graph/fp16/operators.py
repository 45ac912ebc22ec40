"""Operators of ``ai.eptx`` in float16: which of their inputs and outputs are activations, and casts that they need not.

GenAI's builder makes graphs that compute in float16. The editor casts what an operator reads to float32 and back, as
the native kernels need it; on CUDA the functions run, which compute in whatever type the activations have.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import onnx_ir as ir

from eptx.manifest.names import OPERATOR_DOMAIN

#: Inputs that are activations, and have one type. An operator casts the others itself.
_ACTIVATION = re.compile(r"x|m|y(_\d+)?")
_ADAPTED = re.compile(r"y(_\d+)?")


class Activations(NamedTuple):
    """What of an operator is activations: these of its inputs, and so many of its outputs, which are the first."""

    inputs: tuple[int, ...]
    outputs: int


def activations(model: ir.Model, node: ir.Node) -> Activations:
    """What of a node of ``ai.eptx`` is activations. What routers give besides is float32 in every precision."""
    names = [value.name or "" for value in model.functions[node.op_identifier()].inputs]
    inputs = tuple(index for index, name in enumerate(names) if _ACTIVATION.fullmatch(name))
    adapted = sum(_ADAPTED.fullmatch(name) is not None for name in names)
    return Activations(inputs, adapted or int("m" in names))


def drop_casts(model: ir.Model) -> None:
    """Takes the casts away between a graph in float16 and the operators of ``ai.eptx``, in place."""
    for node in [node for node in model.graph if node.domain == OPERATOR_DOMAIN]:
        found = activations(model, node)
        before = [_cast(node.inputs[index], ir.DataType.FLOAT) for index in found.inputs]
        behind = [_only_cast(value) for value in node.outputs[: found.outputs]]
        if None in before or None in behind:
            continue
        for index, cast in zip(found.inputs, before, strict=True):
            node.replace_input_with(index, cast.inputs[0] if cast is not None else None)
        for value, cast in zip(node.outputs, behind, strict=False):
            assert cast is not None
            made = cast.outputs[0]
            made.replace_all_uses_with(value)
            name, value.type, value.shape = made.name, made.type, made.shape
            model.graph.remove(cast, safe=True)
            value.name = name
        for cast in dict.fromkeys(before):
            if cast is not None and not cast.outputs[0].uses():
                model.graph.remove(cast, safe=True)


def _cast(value: ir.Value | None, to: ir.DataType) -> ir.Node | None:
    """The cast that makes a value of one in float16."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Cast" or node.attributes["to"].as_int() != to:
        return None
    source = node.inputs[0]
    return node if source is not None and source.dtype == ir.DataType.FLOAT16 else None


def _only_cast(value: ir.Value) -> ir.Node | None:
    """The cast to float16 that alone reads a value."""
    users = list(value.consumers())
    if len(users) != 1 or users[0].op_type != "Cast" or value.is_graph_output():
        return None
    (node,) = users
    to_half = node.attributes["to"].as_int() == ir.DataType.FLOAT16
    return node if to_half and not node.outputs[0].is_graph_output() else None
