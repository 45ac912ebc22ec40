"""TopExperts: MixLoRA's router, which chooses the experts of every token.

    p = softmax(gate x)                                         [E]
    the K largest of p, divided by their sum

The chosen experts come in the order of their numbers, so that rounding cannot swap two that are chosen anyway.
"""

from __future__ import annotations

from onnxscript import opset18 as op
from onnxscript import script

from eptx.exporter.ops.domain import eptx_domain


@script(eptx_domain)
def TopExperts(x, gate, top_k: int):  # type: ignore[no-untyped-def]
    """The experts of every token, and how much each counts.

    Args:
        x: what the router reads, [..., in]: T tokens.
        gate: [E, in].
        top_k: K.

    Returns:
        experts int64 [T, K], ascending; weights [T, K], which sum to 1.
    """
    flat = op.Constant(value_ints=[-1])
    tokens = op.Reshape(x, op.Concat(flat, op.Shape(x, start=-1), axis=0))
    scores = op.MatMul(op.CastLike(tokens, gate), op.Transpose(gate, perm=[1, 0]))
    p = op.Softmax(scores, axis=-1)
    k = op.Reshape(op.Constant(value_int=top_k), [1])
    largest, chosen = op.TopK(p, k, axis=-1)
    experts, order = op.TopK(chosen, k, axis=-1, largest=0)
    weights = op.Div(op.GatherElements(largest, order, axis=1), op.ReduceSum(largest, [1]))
    return experts, weights
