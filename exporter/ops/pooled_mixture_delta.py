"""PooledMixtureDelta: Lily's update of a linear's output, whose experts are mixed alike for all tokens of a row.

    u = a x;   w = mean over the positions that count of softmax(gate u)         [E]
    y' = y + (sum_e w_e b_e) u

The mask decides what the mean is over, and so which routing it is: one row of ones over everything is Lily's own, in
which all rows of a batch share w; an attention mask [N, L] gives each row its own. b comes with the adapter's scale
multiplied in.
"""

from __future__ import annotations

from onnxscript import opset18 as op
from onnxscript import script

from eptx.exporter.ops.domain import delta, eptx_domain


@delta("x", "mask")
@script(eptx_domain)
def PooledMixtureDelta(y, x, mask, gate, a, b):  # type: ignore[no-untyped-def]
    """y + (x a) (sum_e w[row, e] b_e), w the row's mean of softmax(gate (x a)).

    Args:
        y: the base linear's output, [N, ..., out].
        x: the linear's input, [N, ..., in]; its tokens are the positions of `mask`, in the same order.
        mask: [N, L], 1 where a position counts. [1, N * L] of ones is Lily's routing.
        gate: [E, R].
        a: [in, R].
        b: [E, R, out].
    """
    flat = op.Constant(value_ints=[-1])
    n = op.Shape(mask, start=0, end=1)
    u = op.MatMul(op.Reshape(x, op.Concat(n, flat, op.Shape(x, start=-1), axis=0)), op.CastLike(a, x))
    p = op.Softmax(op.MatMul(op.CastLike(u, gate), op.Transpose(gate, perm=[1, 0])), axis=-1)
    counts = op.CastLike(mask, gate)
    count = op.Max(op.ReduceSum(counts, [1]), op.CastLike(op.Constant(value_float=1.0), gate))
    share = op.Div(counts, count)  # of the mask alone: once for all modules
    w = op.CastLike(op.Squeeze(op.MatMul(op.Unsqueeze(share, [1]), p), [1]), x)
    rank, out = op.Shape(b, start=1, end=2), op.Shape(b, start=-1)
    planes = op.Reshape(op.CastLike(b, x), op.Concat(op.Shape(b, start=0, end=1), flat, axis=0))
    mixed = op.Reshape(op.MatMul(w, planes), op.Concat(n, rank, out, axis=0))
    return op.Add(y, op.Reshape(op.MatMul(u, mixed), op.Shape(y)))
