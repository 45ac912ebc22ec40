"""fp16 storage: weights are written as float16 and cast back in the graph, which ONNX Runtime folds at load.

The operators of domain ``ai.eptx`` take them as they are stored: the bodies cast them, a native kernel need not.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from eptx.errors import LimitError
from eptx.exporter.bases.initializers import add_initializer
from eptx.manifest.names import OPERATOR_DOMAIN

#: Smaller tensors (scalars, mask fills, epsilons) gain nothing and may not fit float16.
MIN_SIZE = 256
#: How the name of what is stored in a weight's place goes on.
HALF = ".fp16"
#: The largest number of float16.
LARGEST = float(np.finfo(np.float16).max)


def store_fp16(model: ir.Model, exact: Collection[str], *, but: Collection[str] | None = None) -> None:
    """Turns every float32 weight but a few into a float16 one, cast back for all but eptx's operators.

    Args:
        model: changed in place.
        exact: names of the adapter's constants that stay float32; see `GraphEditor.exact`.
        but: names of the base's weights, where only the adapter is to be stored so: the base is quantized, or computes
            in float16. (A bias that an operator of eptx adds is read by it alone, and is the base's.)

    Raises:
        LimitError: a weight is too large for float16.
    """
    graph = model.graph
    for value in [v for v in graph.initializers.values() if v.name not in exact and is_weight(v)]:
        if but is not None and (value.name in but or any(user.domain != OPERATOR_DOMAIN for user in value.consumers())):
            continue
        _halve(graph, value, halved(value, value.const_value.numpy()))  # type: ignore[union-attr]


def halved(value: ir.Value, array: np.ndarray) -> np.ndarray:
    """A weight as float16.

    Raises:
        LimitError: it is too large for that.
    """
    largest = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
    if largest > LARGEST:
        raise LimitError(
            f"{value.name} has a value of {largest:.3g}, past float16's {LARGEST:.5g}: use --precision fp32"
        )
    return array.astype(np.float16)


def is_weight(value: ir.Value) -> bool:
    """Whether a value is a float32 weight that is worth storing as float16."""
    tensor = value.const_value
    if value.is_graph_output():  # whose type is the caller's business
        return False
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and tensor.size >= MIN_SIZE


def _halve(graph: ir.Graph, value: ir.Value, array: np.ndarray) -> None:
    name = value.name
    assert name is not None
    del graph.initializers[name]
    stored = add_initializer(graph, f"{name}{HALF}", array)
    for user, index in list(value.uses()):
        if user.domain == OPERATOR_DOMAIN:
            user.replace_input_with(index, stored)
    if value.uses():
        _cast(graph, value, stored)


def _cast(graph: ir.Graph, value: ir.Value, stored: ir.Value) -> None:
    """Puts a cast of what is stored in the place of a value."""
    cast = ir.node("Cast", [stored], attributes={"to": int(ir.DataType.FLOAT)}, name=f"{stored.name}/Cast")
    cast.outputs[0].name, cast.outputs[0].shape, cast.outputs[0].type = value.name, value.shape, value.type
    value.replace_all_uses_with(cast.outputs[0])
    graph.insert_before(graph[0], cast)
