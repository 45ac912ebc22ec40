"""LowRankDelta: LoRA's update of a linear's output, each row through its own task's pair of factors.

    y' = y + B[task] A[task] x

B comes with each task's scale (alpha / r, or alpha / sqrt(r) with rsLoRA) multiplied in, and pairs of smaller rank are
padded with zeros, so tasks of different rank share one operator.
"""

from __future__ import annotations

from onnxscript import opset18 as op
from onnxscript import script

from eptx.exporter.ops._domain import eptx_domain


@script(eptx_domain)
def LowRankDelta(y, x, task_id, a, b):  # type: ignore[no-untyped-def]
    """y + b[task] a[task] x, per row; a task id of T or more adds nothing.

    Args:
        y: the base linear's output, [N, ..., out].
        x: the linear's input, [N, ..., in].
        task_id: int64 [N].
        a: [T, R, in].
        b: [T, R, out], the transposes of the scaled up-projections.
    """
    n = op.Shape(task_id)
    tasks = op.Shape(a, start=0, end=1)
    row = op.Min(task_id, op.Sub(tasks, 1))
    active = op.CastLike(op.Unsqueeze(op.Less(task_id, tasks), [1, 2]), x)
    x_n = op.Reshape(x, op.Concat(n, op.Constant(value_ints=[-1]), op.Shape(x, start=-1), axis=0))
    u = op.MatMul(x_n, op.Transpose(op.Gather(a, row), perm=[0, 2, 1]))
    delta = op.MatMul(op.Mul(u, active), op.Gather(b, row))
    return op.Add(y, op.Reshape(delta, op.Shape(y)))
