"""From the first products of a feed-forward to its last: what is between them is done to every slot of a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from eptx.errors import NotSupportedError
from eptx.exporter.bases.products.products import find_products
from eptx.exporter.graph.editor import GraphEditor

#: Operators that compute every number by itself, or by what other operands have at its place.
_ELEMENTWISE = frozenset(
    {
        *(
            "Add",
            "Sub",
            "Mul",
            "Div",
            "Pow",
            "Neg",
            "Exp",
            "Log",
            "Sqrt",
            "Reciprocal",
            "Abs",
            "Erf",
            "Tanh",
            "Sigmoid",
        ),
        *("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Softplus", "Softsign", "Mish", "Swish", "HardSigmoid"),
        *("HardSwish", "Gelu", "Clip", "Max", "Min", "Cast", "CastLike", "Identity", "ThresholdedRelu", "PRelu"),
        *("FastGelu", "BiasGelu", "QuickGelu"),
    }
)
_DOMAINS = ("", "ai.onnx", "com.microsoft")


@dataclass(frozen=True)
class End:
    """A product that reads slots.

    Attributes:
        node: the product.
        slots: what it reads, [..., K, in].
        choice: which experts the slots are of: `experts` and `weights` of a graph.
    """

    node: ir.Node
    slots: ir.Value
    choice: tuple[ir.Value, ir.Value]


def spread(editor: GraphEditor, begins: Mapping[ir.Value, tuple[ir.Value, ir.Value]], count: int) -> list[End]:
    """Has all that is computed of slotted values computed slot by slot, up to the next products.

    Args:
        editor: of the graph.
        begins: values [..., K, out], which the graph's nodes read by now, and the choice of their experts.
        count: K.

    Raises:
        NotSupportedError: something between is no elementwise operator, or joins slots of several choices.
    """
    graph = editor.model.graph
    products, slots, ends = {product.node for product in find_products(graph)}, dict(begins), []
    for node in list(graph):
        own = [value for value in node.inputs if value in slots]
        if not own:
            continue
        choices = {slots[value] for value in own if value is not None}
        if node in products and node.inputs[0] in slots:
            assert own[0] is not None
            ends.append(End(node, own[0], slots[own[0]]))
            continue
        if len(choices) > 1 or not _by_number(node):
            raise NotSupportedError(
                f"{node.name or node.op_type} ({node.op_type}) is between the products of a feed-forward, and eptx "
                "does not know how to do that for each expert: give the base as its transformers folder"
            )
        (choice,) = choices
        for index, value in enumerate(node.inputs):
            if value is not None and value not in slots and not _broadcasts(value):
                axis = editor.constant("slots.axis", np.array([-2]))
                node.replace_input_with(index, editor.node("Unsqueeze", [value, axis])[0])
        for output in node.outputs:
            if output.is_graph_output():
                raise NotSupportedError(f"the graph's output {output.name} is inside of a feed-forward with experts")
            output.shape = with_slots(output.shape, count)
            slots[output] = choice
    return ends


def _by_number(node: ir.Node) -> bool:
    """Whether a node does the same to every slot as to the value without slots."""
    if node.op_type == "Split" and node.domain in ("", "ai.onnx"):
        return node.attributes.get_int("axis", 0) == -1
    return node.op_type in _ELEMENTWISE and node.domain in _DOMAINS


def _broadcasts(value: ir.Value) -> bool:
    """Whether an operand has no axes but the features."""
    return value.shape is not None and len(value.shape) < 2


def with_slots(shape: ir.Shape | None, count: int) -> ir.Shape | None:
    """A shape with an axis of so many slots before the features; None where nothing is known of it."""
    return None if shape is None or not len(shape) else ir.Shape([*list(shape)[:-1], count, list(shape)[-1]])
