"""PyramidDelta: EPT's update of a linear's output, each row through the experts of its own task.

With s_e the kernel size of expert e, A^T stored as a [>= in // 2, R], B^T as b [R, >= out // 2] and kappa_e the kernel
laid out flat,

    n_e = max(1, in // s_e)
    u_e = x[:n_e] a[:n_e]
    delta_e[o] = kappa_e[o] * (u_e b)[o // s_e]            (kappa_e is zero past max(1, out // s_e) * s_e)
    y' = y + sum_k w_k delta_{e_k}

so expert e is the rank-R pair (a masked to its window, kappa_e * b with column o // s_e at o). Both depend on
constants alone: ONNX Runtime folds them when the session opens, and what is left per call is a gather of K
pairs per row and two products. All tasks share a, b and the kernels.
The kernels come with the adapter's scale multiplied in.
"""

from __future__ import annotations

from onnxscript import opset18 as op
from onnxscript import script

from eptx.exporter.ops.domain import delta, eptx_domain


@delta("x", "route")
@script(eptx_domain)
def PyramidDelta(y, x, route, experts, weights, a, b, kernels, sizes, in_features: int):  # type: ignore[no-untyped-def]
    """y + sum_k w[n, k] * delta_{e[n, k]}(x) with e = experts[route], w = weights[route], per row n.

    Args:
        y: the base linear's output, [N, ..., out] (or [N * L, out]).
        x: the linear's input, [N, ..., in] (or [N * L, in]).
        route: int64 [N], which row of the two tables is whose.
        experts: int64 [P, K].
        weights: [P, K]; zeros switch the adapter off.
        a: [>= in // 2, R].
        b: [R, >= out // 2].
        kernels: [E, out], expert e's scaled kernel flattened to c * s_e + j, zero-padded and cut at out.
        sizes: int64 [E], the kernel sizes.
        in_features: in.
    """
    # What is made of constants is made in float64: ONNX Runtime folds it on the CPU, which has few kernels in float16.
    # The windows of a: expert e reads the first in // s_e features, and at least one.
    features = op.Range(0, op.Squeeze(op.Shape(a, start=0, end=1)), 1)
    windows = op.Max(op.Div(op.Constant(value_int=in_features), sizes), op.Constant(value_int=1))
    inside = op.Cast(op.Less(op.Unsqueeze(features, [0]), op.Unsqueeze(windows, [1])), to=11)
    down = op.Transpose(op.Cast(a, to=11), perm=[1, 0])
    windowed = op.CastLike(op.Mul(op.Unsqueeze(down, [0]), op.Unsqueeze(inside, [1])), x)
    # The expansion of b: output o of expert e is column o // s_e, scaled by the kernel.
    outputs = op.Range(0, op.Squeeze(op.Shape(kernels, start=1, end=2)), 1)
    columns = op.Div(op.Unsqueeze(outputs, [0]), op.Unsqueeze(sizes, [1]))
    last = op.Sub(op.Shape(b, start=1, end=2), 1)
    expanded = op.Gather(op.Cast(b, to=11), op.Min(columns, last), axis=1)
    scaled = op.Mul(expanded, op.Unsqueeze(op.Cast(kernels, to=11), [0]))
    up = op.CastLike(op.Transpose(scaled, perm=[1, 0, 2]), x)
    # Per row: its K pairs side by side, one product down and one up. (In a Reshape, 0 keeps the rows.)
    experts_n = op.Gather(experts, route)
    weights_n = op.Gather(op.CastLike(weights, x), route)
    flat = op.Constant(value_ints=[-1])
    keep = op.Constant(value_ints=[0])
    used = op.Shape(a, start=0, end=1)
    down_n = op.Reshape(op.Gather(windowed, experts_n), op.Concat(keep, flat, used, axis=0))
    mixed = op.Mul(op.Gather(up, experts_n), op.Unsqueeze(weights_n, [2, 3]))
    up_n = op.Reshape(mixed, op.Concat(keep, flat, op.Shape(kernels, start=1, end=2), axis=0))
    rows_n = op.Concat(op.Shape(route), flat, op.Shape(x, start=-1), axis=0)
    x_n = op.Slice(op.Reshape(x, rows_n), [0], used, [2])
    delta = op.MatMul(op.MatMul(x_n, op.Transpose(down_n, perm=[0, 2, 1])), up_n)
    return op.Add(y, op.Reshape(delta, op.Shape(y)))
