"""LowRankDelta: LoRA's update of a linear's output, each row through its own task's pair of factors.

    y' = y + (x a[route]) b[route],   a[t] = A_t^T, b[t] = B_t^T

b comes with each task's scale (alpha / r, or alpha / sqrt(r) with rsLoRA) multiplied in, and pairs of smaller rank are
padded with zeros, so tasks of different rank share one operator.
"""

from __future__ import annotations

from onnxscript import opset18 as op
from onnxscript import script

from eptx.exporter.ops.domain import delta, eptx_domain


@delta("x", "route")
@script(eptx_domain)
def LowRankDelta(y, x, route, a, b):  # type: ignore[no-untyped-def]
    """y + (x a[route]) b[route], per row; a route of T or more adds nothing.

    Args:
        y: the base linear's output, [N, ..., out].
        x: the linear's input, [N, ..., in].
        route: int64 [N], each row's task.
        a: [T, in, R].
        b: [T, R, out].
    """
    # b gets a last entry of zeros, which folds: rows without an adapter take it, and no node has to switch them off
    tasks = op.Shape(a, start=0, end=1)
    nothing = op.ConstantOfShape(op.Concat(op.Constant(value_ints=[1]), op.Shape(b, start=1), axis=0))
    with_nothing = op.Concat(b, op.CastLike(nothing, b), axis=0)
    x_n = op.Reshape(x, op.Concat(op.Shape(route), op.Constant(value_ints=[-1]), op.Shape(x, start=-1), axis=0))
    u = op.MatMul(x_n, op.Gather(op.CastLike(a, x), op.Min(route, op.Sub(tasks, 1))))
    delta = op.MatMul(u, op.Gather(op.CastLike(with_nothing, x), op.Min(route, tasks)))
    return op.Add(y, op.Reshape(delta, op.Shape(y)))
