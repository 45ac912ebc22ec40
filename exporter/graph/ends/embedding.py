"""The output ``embedding``: one vector for each row, as the base's sentence-transformers folder makes it.

It belongs to the base's graph: it is put there before any adapter, so that rows of every task, and of ``base``, have
theirs. Its nodes and weights have names of their own, by which what adapts or rounds the base leaves them alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from eptx._one_line import shown
from eptx.errors import BaseModelError, NotSupportedError
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.weights.sentence import Linear, Sentence
from eptx.exporter.graph.builder import GraphBuilder
from eptx.exporter.graph.ends.pooling import pool
from eptx.exporter.graph.names import IN_EMBEDDING
from eptx.manifest.names import EMBEDDING, HIDDEN

__all__ = ["put_embedding"]

#: torch's least length of a vector that is divided by it.
_LEAST = 1e-12


def put_embedding(graph: BaseGraph, sentence: Sentence) -> BaseGraph:
    """A graph with the output ``embedding`` [batch, size], float32.

    Args:
        graph: of the base; changed in place.
        sentence: what the base's folder says.

    Raises:
        NotSupportedError: the graph does not give the vectors of its tokens, or has such an output.
        BaseModelError: they are of another width than the folder says.
    """
    outputs = {output.name: output for output in graph.model.graph.outputs}
    if HIDDEN not in outputs:
        raise NotSupportedError(f"the model gives {', '.join(map(str, outputs))}, and no {HIDDEN} to pool")
    hidden = outputs[HIDDEN]
    if hidden.shape is None or len(hidden.shape) != 3:
        raise NotSupportedError(f"the model's {HIDDEN} is not one vector for each token")
    width = hidden.shape[2] if isinstance(hidden.shape[2], int) else graph.config.get("hidden_size")
    if width is not None and width != sentence.width:
        raise BaseModelError(
            f"modules.json is of vectors of {sentence.width} numbers, and the model gives {shown(width)}: "
            "download the folder again"
        )
    if EMBEDDING in outputs:
        raise NotSupportedError(f"the model has an output {EMBEDDING} of its own")
    builder = GraphBuilder(graph.model, IN_EMBEDDING)
    if hidden.dtype not in (None, ir.DataType.FLOAT):
        hidden = builder.node("Cast", [hidden], to=int(ir.DataType.FLOAT))[0]
    pooled = [pool(builder, hidden, mode) for mode in sentence.pooling]
    vector = pooled[0] if len(pooled) == 1 else builder.node("Concat", pooled, axis=1)[0]
    for index, layer in enumerate(sentence.layers):
        vector = _dense(builder, vector, layer, f"{IN_EMBEDDING}{index}")
    if sentence.normalize:
        vector = _normalized(builder, vector)
    builder.settle()
    builder.add_output(EMBEDDING, vector, ir.DataType.FLOAT, sentence.size)
    return replace(graph, embedding=sentence.embedding)


def _dense(builder: GraphBuilder, x: ir.Value, layer: Linear, name: str) -> ir.Value:
    weight = builder.constant(f"{name}.weight", layer.weight.T)
    y = builder.node("MatMul", [x, weight])[0]
    if layer.bias is not None:
        y = builder.node("Add", [y, builder.constant(f"{name}.bias", layer.bias)])[0]
    return _activated(builder, y, layer.activation)


def _activated(builder: GraphBuilder, x: ir.Value, activation: str) -> ir.Value:
    """As torch.nn computes it without arguments."""
    if activation == "identity":
        return x
    if activation == "silu":
        return builder.node("Mul", [x, builder.node("Sigmoid", [x])[0]])[0]
    if activation == "gelu":  # x/2 (1 + erf(x / sqrt 2)): the operator Gelu asks for opset 20
        root, half, one = (
            builder.constant(f"{IN_EMBEDDING}{n}", np.array(v))
            for n, v in (("root", np.sqrt(0.5)), ("half", 0.5), ("one", 1.0))
        )
        part = builder.node("Erf", [builder.node("Mul", [x, root])[0]])[0]
        return builder.node("Mul", [builder.node("Mul", [x, half])[0], builder.node("Add", [part, one])[0]])[0]
    return builder.node({"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid"}[activation], [x])[0]


def _normalized(builder: GraphBuilder, x: ir.Value) -> ir.Value:
    axis = builder.constant(f"{IN_EMBEDDING}axis", np.array([1]))
    least = builder.constant(f"{IN_EMBEDDING}least", np.array(_LEAST))
    length = builder.node("ReduceL2", [x, axis], keepdims=1)[0]
    return builder.node("Div", [x, builder.node("Max", [length, least])[0]])[0]
