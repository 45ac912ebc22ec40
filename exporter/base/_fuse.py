"""ONNX Runtime's fusions for a base graph, with every projection left a product of its own.

transformers' fusions pack the products that read one input (query, key, value) into one, which loses the
modules' names, and folding merges a weight with a constant input. Neither happens to a weight that is not
there, so the weights wait outside the graph while it is optimised. Measured on MiniLM (ONNX Runtime 1.31,
CPU): packed products are no faster, from 1 x 1 to 8 x 128.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir

from eptx.exporter.base._form import is_form
from eptx.exporter.base._products import find_products


def fuse(model: ir.Model, provider: str) -> None:
    """Optimises a freshly traced graph in place for an execution provider, "cpu" or "cuda"."""
    from onnxscript import optimizer
    from transformers.exporters.onnxruntime_fusions import fuse_for_onnxruntime

    _turn_weights(model.graph)
    with _weights_outside(model.graph):
        optimizer.optimize(model)
        fuse_for_onnxruntime(model, provider)


def _turn_weights(graph: ir.Graph) -> None:
    """Stores ``Transpose(W)`` instead of W where only products of it read W."""
    for product in find_products(graph):
        node, value = product.node, product.node.inputs[1]
        step = value.producer() if value is not None else None
        if step is None or step.op_type != "Transpose" or step.inputs[0] is not product.weight:
            continue
        if product.weight.const_value is None or any(
            not is_form(user) for user in product.weight.consumers()
        ):
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


@contextmanager
def _weights_outside(graph: ir.Graph) -> Iterator[None]:
    """Turns the products' weights into graph inputs without a value, and back."""
    weights = {product.weight: product.weight.const_value for product in find_products(graph)}
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
