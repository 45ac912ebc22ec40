"""TokenMixtureDelta: the update of a linear's output by low-rank experts that every token mixes for itself.

    p = softmax(gate x)                                         [E]
    y' = y + sum_e p_e b_e (a_e x)

HydraLoRA's experts share one factor a; LoRAMoE's have one each. b comes with the adapter's scale multiplied in. The
products of all experts are two: what differs per token is the E numbers between them.
"""

from __future__ import annotations

from onnxscript import opset18 as op
from onnxscript import script

from eptx.exporter.ops.domain import delta, eptx_domain


@delta("x")
@script(eptx_domain)
def TokenMixtureDelta(y, x, gate, a, b):  # type: ignore[no-untyped-def]
    """y + the sum over the experts of softmax(gate x)_e (x a_e) b_e, per token.

    Args:
        y: the base linear's output, [..., out].
        x: the linear's input, [..., in].
        gate: [E, in].
        a: [in, G * R], G = E experts side by side, or G = 1: all have the same.
        b: [E, R, out].
    """
    shared = op.Constant(value_ints=[-1])
    tokens = op.Reshape(x, op.Concat(shared, op.Shape(x, start=-1), axis=0))
    scores = op.MatMul(op.CastLike(tokens, gate), op.Transpose(gate, perm=[1, 0]))
    p = op.CastLike(op.Softmax(scores, axis=-1), x)
    rank, out = op.Shape(b, start=1, end=2), op.Shape(b, start=-1)
    n = op.Shape(tokens, start=0, end=1)
    u = op.Reshape(op.MatMul(tokens, op.CastLike(a, x)), op.Concat(n, shared, rank, axis=0))
    mixed = op.Reshape(op.Mul(op.Unsqueeze(p, [2]), u), op.Concat(n, shared, axis=0))
    delta = op.MatMul(mixed, op.Reshape(op.CastLike(b, x), op.Concat(shared, out, axis=0)))
    return op.Add(y, op.Reshape(delta, op.Shape(y)))
