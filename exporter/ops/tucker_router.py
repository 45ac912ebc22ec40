"""TuckerRouter: TuckA's data-aware router, from the input of the router module to a group and its weights.

    h = mean of x over the positions that count;  L = (centroids h) as [k, t], each row divided by its length
    a = sigmoid(L);  group = the row of the largest a;  weights = a[group]

The mask decides what is averaged, and so which routing it is: one row of ones over everything gives the
released route of the whole batch, an attention mask [N, L] gives each row its own.
"""

from __future__ import annotations

from onnxscript import opset18 as op
from onnxscript import script

from eptx.exporter.ops.domain import eptx_domain


@script(eptx_domain)
def TuckerRouter(x, mask, centroids, groups: int):  # type: ignore[no-untyped-def]
    """Group and expert weights per row of `mask`.

    Args:
        x: the router module's input, [N, L, in]; reshaped to one row per row of `mask`.
        mask: [N, L], 1 where a position counts. [1, N * L] of ones is the released routing.
        centroids: [k * t, in].
        groups: k.

    Returns:
        group int64 [N]; weights [N, t].
    """
    n = op.Shape(mask, start=0, end=1)
    flat = op.Constant(value_ints=[-1])
    x_n = op.Reshape(op.CastLike(x, centroids), op.Concat(n, flat, op.Shape(x, start=-1), axis=0))
    counts = op.CastLike(mask, centroids)
    total = op.MatMul(op.Unsqueeze(counts, [1]), x_n)
    count = op.Max(op.ReduceSum(counts, [1]), op.CastLike(op.Constant(value_float=1.0), centroids))
    h = op.Div(op.Squeeze(total, [1]), count)
    k = op.Reshape(op.Constant(value_int=groups), [1])
    scores = op.MatMul(h, op.Transpose(centroids, perm=[1, 0]))
    by_group = op.Reshape(scores, op.Concat(n, k, flat, axis=0))
    length = op.Sqrt(op.ReduceSum(op.Mul(by_group, by_group), [2]))
    tiny = op.CastLike(op.Constant(value_float=1e-12), centroids)
    weights = op.Sigmoid(op.Div(by_group, op.Max(length, tiny)))
    group = op.ArgMax(op.ReduceMax(weights, [2], keepdims=0), axis=1, keepdims=0)
    picked = op.GatherND(weights, op.Unsqueeze(group, [1]), batch_dims=1)
    return group, picked
