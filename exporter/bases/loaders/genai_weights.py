"""Has GenAI's builder quantize one weight at a time.

Of itself the builder (0.18) makes every weight float32 before it quantizes the first: a checkpoint of bfloat16 takes
three times its size in memory. Weights do not depend on each other, so the graph is given to it product by product, and
each comes back as one node with the quantized weight.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import onnx_ir as ir


@contextlib.contextmanager
def one_weight_at_a_time(model_class: Any) -> Iterator[None]:
    """While it lasts, models of this class of the builder's quantize so.

    Args:
        model_class: ``onnxruntime_genai.models.builder.Model``.
    """
    quantize = model_class.to_nbits

    def to_nbits(self: Any) -> ir.Model:
        whole: ir.Model = self.model
        try:
            for node in whole.graph:
                if node.op_type in self.quant_attrs["op_types_to_quantize"] and _weights(node):
                    self.model = _alone(node, whole)
                    _take(node, quantize(self))
        finally:
            self.model = whole
        return whole

    with mock.patch.object(model_class, "to_nbits", to_nbits):
        yield


def _weights(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None and value.is_initializer()]


def _alone(node: ir.Node, whole: ir.Model) -> ir.Model:
    """A model of a copy of one node."""
    values = {value: _copy(value) for value in (*node.inputs, *node.outputs) if value is not None}
    copy = ir.Node(
        node.domain,
        node.op_type,
        [None if value is None else values[value] for value in node.inputs],
        node.attributes.values(),
        outputs=[values[value] for value in node.outputs],
        name=node.name,
    )
    weights = _weights(node)
    graph = ir.Graph(
        [values[value] for value in node.inputs if value is not None and value not in weights],
        copy.outputs,
        nodes=[copy],
        initializers=[values[value] for value in weights],
        opset_imports=dict(whole.graph.opset_imports),
    )
    return ir.Model(graph, ir_version=whole.ir_version)


def _copy(value: ir.Value) -> ir.Value:
    return ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)


def _take(node: ir.Node, done: ir.Model) -> None:
    """Makes a node what the only one of another model is, with the weights of that."""
    graph, others = node.graph, list(done.graph)
    assert isinstance(graph, ir.Graph)
    if len(others) != 1:
        raise ValueError(f"{node.name} is {len(others)} nodes when it is quantized")
    known = {value.name: value for value in node.inputs if value is not None}
    before = _weights(node)
    inputs = [None if value is None else _known(graph, value, known) for value in others[0].inputs]
    node.domain, node.op_type, node.name = others[0].domain, others[0].op_type, others[0].name
    node.attributes.clear()
    node.attributes.update(others[0].attributes)
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)
    graph.opset_imports.update(done.graph.opset_imports)
    for value in before:
        if value.name is not None and not value.uses():
            del graph.initializers[value.name]


def _known(graph: ir.Graph, value: ir.Value, known: dict[str | None, ir.Value]) -> ir.Value:
    """The value of a graph for another one's of the same name; a new weight becomes one of the graph's."""
    if value.name in known:
        return known[value.name]
    assert value.name is not None
    if value.name not in graph.initializers:
        weight = value.const_value
        assert weight is not None
        own = ir.Tensor(np.array(weight.numpy()), dtype=weight.dtype, name=value.name)  # what it was made of goes
        graph.initializers.add(ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=own))
    return graph.initializers[value.name]
