"""TuckerDelta: TuckA's update of a linear's output, from the route.

    M = sum_t a_t sum_p c[t, p] g[group, p]                    [R, R]
    y' = y + ((x u) M) p,   p = alpha (W u)^T                  [R, out]

This is the released x' = x + alpha ((x u) M) u^T; y = W x' + b with W moved past the sum, so x and the base product
stay what they are. u, c and g come normalized (u / ||u||_F, c / ||c||_F, each group's g / ||g||_F).
"""

from __future__ import annotations

from onnxscript import opset18 as op
from onnxscript import script

from eptx.exporter.ops.domain import delta, eptx_domain


@delta("x", "group", "weights")
@script(eptx_domain)
def TuckerDelta(y, x, group, weights, u, g, c, p):  # type: ignore[no-untyped-def]
    """y + ((x u) M[row]) p.

    Args:
        y: the base linear's output, [N, ..., out].
        x: the linear's input, [N, ..., in].
        group: int64 [N], or [1] for the whole batch.
        weights: [N, t] or [1, t].
        u: [in, R].
        g: [k, P, R, R].
        c: [t, P].
        p: [R, out], alpha (W u)^T.
    """
    flat = op.Constant(value_ints=[-1])
    k = op.Shape(g, start=0, end=1)
    rank = op.Shape(u, start=1, end=2)
    planes = op.Reshape(op.Cast(g, to=11), op.Concat(k, op.Shape(g, start=1, end=2), flat, axis=0))
    experts = op.CastLike(op.MatMul(op.Cast(c, to=11), planes), x)  # folded on the CPU, which has no product in float16
    n = op.Shape(group)
    mixed = op.MatMul(op.Unsqueeze(op.CastLike(weights, x), [1]), op.Gather(experts, group))
    m = op.Reshape(mixed, op.Concat(n, rank, rank, axis=0))
    x_n = op.Reshape(x, op.Concat(n, flat, op.Shape(x, start=-1), axis=0))
    delta = op.MatMul(op.MatMul(op.MatMul(x_n, op.CastLike(u, x)), m), op.CastLike(p, x))
    return op.Add(y, op.Reshape(delta, op.Shape(y)))
