"""ONNX Runtime's fusions for a base graph, with every projection left a product of its own.

transformers' fusions pack the products that read one input (query, key, value) into one, which loses the
modules' names, and folding merges a weight with a constant input. Neither happens to a weight that is not
there, so the weights wait outside the graph while it is optimized. Measured on MiniLM (ONNX Runtime 1.31,
CPU): packed products are no faster, from 1 x 1 to 8 x 128.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir

from eptx.exporter.bases.products.form import is_form
from eptx.exporter.bases.products.products import find_products

_SKIP_NORMS = ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")


def fuse(model: ir.Model, provider: str, keep: Iterable[ir.Value] = ()) -> None:
    """Optimizes a freshly traced graph in place for an execution provider, "cpu" or "cuda".

    Args:
        model: the graph.
        provider: the execution provider.
        keep: further initializers whose values nothing may be made of.
    """
    from onnxscript import optimizer
    from transformers.exporters.onnxruntime_fusions import fuse_for_onnxruntime

    _turn_weights(model.graph)
    with _weights_outside(model.graph, keep):
        optimizer.optimize(model)
        fuse_for_onnxruntime(model, provider)
        _unpack_attention(model.graph)
    _drop_unread_sums(model.graph)
    _turn_batches(model.graph)
    _keep_turned(model)


def _turn_weights(graph: ir.Graph) -> None:
    """Stores ``Transpose(W)`` instead of W where only products of it read W."""
    for product in find_products(graph):
        node, value = product.node, product.node.inputs[1]
        step = value.producer() if value is not None else None
        if step is None or step.op_type != "Transpose" or step.inputs[0] is not product.weight:
            continue
        if product.weight.const_value is None or any(not is_form(user) for user in product.weight.consumers()):
            continue
        # contiguous: the runtime would otherwise turn it again in every session
        array = np.ascontiguousarray(product.weight.const_value.numpy().T)
        weight = product.weight
        weight.const_value = ir.Tensor(array, name=weight.name)
        weight.shape = ir.Shape(array.shape)
        for user in list(weight.consumers()):
            user.outputs[0].replace_all_uses_with(weight)
            graph.remove(user, safe=True)
        assert node.inputs[1] is weight


def _unpack_attention(graph: ir.Graph) -> None:
    """Takes the products of query, key and value out of ``Attention`` again (CLIP's), which then hides no module."""
    for node in list(graph):
        packed = node.inputs[1] if node.op_type == "Attention" and node.domain == "com.microsoft" else None
        join = packed.producer() if packed is not None else None
        if join is None or join.op_type != "Concat" or len(join.inputs) != 3 or any(node.inputs[3:5]):
            continue
        x, weights = node.inputs[0], list(join.inputs)
        products = [ir.node("MatMul", [x, weight], name=_path_of(weight)) for weight in weights]
        bias, added = (node.inputs[i] if len(node.inputs) > i else None for i in (2, 5))
        kept = {
            n: a
            for n, a in node.attributes.items()
            if n in ("num_heads", "scale", "unidirectional", "mask_filter_value")
        }
        inputs = [*(product.outputs[0] for product in products), bias, None, added]
        attention = ir.Node("com.microsoft", "MultiHeadAttention", inputs, list(kept.values()), name=node.name)
        for product, weight in zip(products, weights, strict=True):
            y, width = product.outputs[0], weight.shape[-1] if weight is not None and weight.shape is not None else None
            y.type = node.outputs[0].type
            if x is not None and x.shape is not None and width is not None:
                y.shape = ir.Shape([*list(x.shape)[:-1], width])
        y, new = node.outputs[0], attention.outputs[0]
        new.type, new.shape = y.type, y.shape
        ir.convenience.replace_nodes_and_values(graph, node, [node, join], [*products, attention], [y], [new])


def _drop_unread_sums(graph: ir.Graph) -> None:
    """Leaves a norm that adds its input first with one output where nothing reads the sum.

    The fusions name all four outputs. ONNX Runtime's CPU provider then writes the sum, and OpenVINO does not load the
    model.
    """
    for node in graph:
        is_norm = node.domain == "com.microsoft" and node.op_type in _SKIP_NORMS
        if is_norm and not any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
            node.resize_outputs(1)


def _turn_batches(graph: ir.Graph) -> None:
    """Turns the batch before a ``FusedMatMul`` that would turn it and cannot, as its other input has fewer axes.

    torch's attention multiplies [length, batch, width] by a part of its weight (SigLIP's pooler); the fusions take
    the transposition into the product, which ONNX Runtime computes for inputs of as many axes only.
    """
    for node in [each for each in graph if each.op_type == "FusedMatMul"]:
        for place, name in enumerate(("transBatchA", "transBatchB")):
            turned, x, other = node.attributes.get(name), node.inputs[place], node.inputs[1 - place]
            if turned is None or not turned.as_int() or x is None or x.shape is None:
                continue
            if other is not None and other.shape is not None and len(other.shape) == len(x.shape):
                continue
            first, *outer, last = x.shape
            turn = ir.node("Transpose", [x], {"perm": [*range(1, len(outer) + 1), 0, len(outer) + 1]})
            turn.outputs[0].type, turn.outputs[0].shape = x.type, ir.Shape([*outer, first, last])
            graph.insert_before(node, turn)
            node.replace_input_with(place, turn.outputs[0])
            del node.attributes[name]


def _path_of(weight: ir.Value | None) -> str:
    """How `tidy` would name the product of a module's weight."""
    module = (weight.name if weight is not None and weight.name else "").removesuffix(".weight")
    return f"/{module}/MatMul"


def _keep_turned(model: ir.Model) -> None:
    """Multiplies by ``Transpose(b)`` in one step where b is the same in every run (DeBERTa-v2's positions).

    The runtime would fold the Transpose, and multiplying by b laid out so took some 3 % more of a 1 x 16 forward with
    DeBERTa-v3-base's widths (ONNX Runtime 1.31, CPU).
    """
    for node in list(model.graph):
        b = node.inputs[1] if node.op_type == "MatMul" and node.domain == "" else None
        turn = b.producer() if b is not None else None
        if b is None or turn is None or turn.op_type != "Transpose" or "perm" not in turn.attributes:
            continue
        if b.shape is None or len(b.shape) < 3 or not b.shape.is_static() or len(b.uses()) > 1:
            continue
        *outer, first, second = turn.attributes["perm"].as_ints()
        other = ir.node("Transpose", turn.inputs, {"perm": [*outer, second, first]}, name=turn.name)
        product = ir.node(
            "FusedMatMul",
            [node.inputs[0], other.outputs[0]],
            {"transB": 1},
            domain="com.microsoft",
            name=node.name,
        )
        *dims, rows, columns = b.shape
        other.outputs[0].type, other.outputs[0].shape = b.type, ir.Shape([*dims, columns, rows])
        y, new = node.outputs[0], product.outputs[0]
        new.type, new.shape = y.type, y.shape
        ir.convenience.replace_nodes_and_values(model.graph, node, [turn, node], [other, product], [y], [new])
        model.opset_imports["com.microsoft"] = 1


@contextmanager
def _weights_outside(graph: ir.Graph, keep: Iterable[ir.Value]) -> Iterator[None]:
    """Turns the products' weights, and others, into graph inputs without a value, and back into their order."""
    order = list(graph.initializers)
    values = dict.fromkeys([*(product.weight for product in find_products(graph)), *keep])
    weights = {value: value.const_value for value in values}
    for weight in weights:
        assert weight.name is not None
        del graph.initializers[weight.name]
        weight.const_value = None
        graph.inputs.append(weight)
    try:
        yield
    finally:
        for weight, tensor in weights.items():
            graph.inputs.remove(weight)
            weight.const_value = tensor
            graph.register_initializer(weight)
        for name in order:
            value = graph.initializers.pop(name, None)
            if value is not None:
                graph.register_initializer(value)
