"""PyramidDelta: EPT's update of a linear's output, each row through the experts of its own task.

With s_e the kernel size of expert e, A [R, >= in // 2], B [>= out // 2, R] and kappa_e the kernel laid out flat,

    u_e = A[:, :in // s_e] x[:in // s_e]
    delta_e[o] = kappa_e[o] * (B u_e)[o // s_e]            (kappa_e is zero past (out // s_e) * s_e)
    y' = y + sum_k w_k delta_{e_k}

so expert e is the rank-R pair (A masked to its window, kappa_e * B with row o // s_e at o). Both depend on
constants alone: ONNX Runtime folds them when the session opens, and what is left per call is a gather of K
pairs per row and two products. All tasks share A, B and the kernels.
The kernels come with the adapter's scale multiplied in.
"""

from __future__ import annotations

from onnxscript import opset18 as op
from onnxscript import script

from eptx.exporter.ops._domain import eptx_domain


@script(eptx_domain)
def PyramidDelta(y, x, experts, weights, a, b, kernels, sizes, in_features: int):  # type: ignore[no-untyped-def]
    """y + sum_k weights[n, k] * delta_{experts[n, k]}(x), per row n.

    Args:
        y: the base linear's output, [N, ..., out] (or [N * L, out]).
        x: the linear's input, [N, ..., in] (or [N * L, in]).
        experts: int64 [N, K].
        weights: [N, K]; zeros switch the adapter off for a row.
        a: [R, >= in // 2].
        b: [>= out // 2, R].
        kernels: [E, out], expert e's scaled kernel flattened to c * s_e + j and zero-padded.
        sizes: int64 [E], the kernel sizes.
        in_features: in.
    """
    # The windows of A: expert e reads the first in // s_e features.
    columns = op.Range(0, op.Squeeze(op.Shape(a, start=1, end=2)), 1)
    windows = op.Div(op.Constant(value_int=in_features), sizes)
    inside = op.Less(op.Unsqueeze(columns, [0]), op.Unsqueeze(windows, [1]))
    windowed = op.Mul(op.Unsqueeze(a, [0]), op.Unsqueeze(op.CastLike(inside, a), [1]))
    # The expansion of B: output o of expert e is row o // s_e, scaled by the kernel.
    outputs = op.Range(0, op.Squeeze(op.Shape(kernels, start=1, end=2)), 1)
    rows = op.Div(op.Unsqueeze(outputs, [0]), op.Unsqueeze(sizes, [1]))
    last = op.Sub(op.Shape(b, start=0, end=1), 1)
    expanded = op.Mul(op.Gather(b, op.Min(rows, last)), op.Unsqueeze(kernels, [2]))
    up = op.Transpose(expanded, perm=[0, 2, 1])
    # Per row: its K pairs side by side, one product down and one up. (In a Reshape, 0 keeps the rows.)
    flat = op.Constant(value_ints=[-1])
    keep = op.Constant(value_ints=[0])
    used = op.Shape(a, start=1, end=2)
    down_n = op.Reshape(op.Gather(windowed, experts), op.Concat(keep, flat, used, axis=0))
    mixed = op.Mul(op.Gather(up, experts), op.Unsqueeze(weights, [2, 3]))
    up_n = op.Reshape(mixed, op.Concat(keep, flat, op.Shape(kernels, start=1, end=2), axis=0))
    rows_n = op.Concat(op.Shape(experts, start=0, end=1), flat, op.Shape(x, start=-1), axis=0)
    x_n = op.Slice(op.Reshape(x, rows_n), [0], used, [2])
    delta = op.MatMul(op.MatMul(x_n, op.Transpose(down_n, perm=[0, 2, 1])), up_n)
    return op.Add(y, op.Reshape(delta, op.Shape(y)))
