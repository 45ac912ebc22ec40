"""Nodes as older releases of ONNX Runtime know them, where these compute the same.

Gelu of ai.onnx, from opset 20 on   ->   Gelu or FastGelu of com.microsoft, which ONNX Runtime has had for long
inputs left out at a node's end     ->   none: the operator took fewer before it got those
"""

from __future__ import annotations

import onnx_ir as ir

from eptx.manifest.names import OPERATOR_DOMAIN

_CONTRIB = "com.microsoft"
_FIRST_GELU = 20


def use_older_nodes(model: ir.Model, *, only_onnxruntime: bool) -> None:
    """Rewrites nodes in place.

    Args:
        model: the model.
        only_onnxruntime: whether operators of com.microsoft may come into a model that has none, so that nothing but
            ONNX Runtime runs it.
    """
    nodes = list(model.graph.all_nodes())
    for node in nodes:
        if node.domain == _CONTRIB:
            last = max((i + 1 for i, value in enumerate(node.inputs) if value is not None), default=0)
            node.resize_inputs(last)
    if not only_onnxruntime and all(node.domain != _CONTRIB for node in nodes):
        return
    for node in nodes:
        if (node.domain, node.op_type) == ("", "Gelu") and model.opset_imports.get("", 0) >= _FIRST_GELU:
            approximate = node.attributes.pop("approximate", None)
            tanh = approximate is not None and approximate.as_string() == "tanh"
            node.domain, node.op_type = _CONTRIB, "FastGelu" if tanh else "Gelu"
            model.opset_imports[_CONTRIB] = 1


def inline_functions(model: ir.Model) -> None:
    """Puts the bodies of a model's functions in the place of their calls. No native kernel runs these."""
    from onnx_ir.passes import common

    common.InlinePass()(model)
    model.opset_imports.pop(OPERATOR_DOMAIN, None)
