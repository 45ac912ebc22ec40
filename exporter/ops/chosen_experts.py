"""MixLoRA's feed-forward: every token runs through the experts that TopExperts has chosen, side by side.

An expert is the base's feed-forward with low-rank updates of its own. What the first products give differs from expert
to expert, so `ChosenExpertsDelta` makes a slot for each of a token's K experts, as the last axis but one; what is
between the products is done to every slot. The last product is linear: the base's is done once, on the weighed mean of
the slots (`ChosenExpertsMean`), and the experts' updates are added to it (`ChosenExpertsSum`):

    sum_k w_k (W m_k + b_e(k) (a_e(k) m_k)) = W (sum_k w_k m_k) + sum_k w_k b_e(k) (a_e(k) m_k),   sum_k w_k = 1

b comes with the adapter's scale multiplied in. An expert's number of E or more is none: its slot is the base's, without
an update. The slots of rows without an adapter are such.
"""

from __future__ import annotations

from onnxscript import opset18 as op
from onnxscript import script

from eptx.exporter.ops.domain import eptx_domain


@script(eptx_domain)
def ChosenExpertsDelta(y, x, experts, a, b):  # type: ignore[no-untyped-def]
    """For every token's expert e: y + (x a_e) b_e; of none, y.

    Args:
        y: the base linear's output, [..., out].
        x: the linear's input, [..., in]: T tokens.
        experts: int64 [T, K], none below 0.
        a: [in, E * R], the experts side by side.
        b: [E, R, out].

    Returns:
        [..., K, out].
    """
    flat = op.Constant(value_ints=[-1])
    t, k = op.Shape(experts, start=0, end=1), op.Shape(experts, start=1)
    count, rank, out = op.Shape(b, start=0, end=1), op.Shape(b, start=1, end=2), op.Shape(b, start=2)
    tokens = op.Reshape(x, op.Concat(t, op.Shape(x, start=-1), axis=0))
    u = op.Reshape(op.MatMul(tokens, op.CastLike(a, x)), op.Concat(t, op.Constant(value_ints=[1]), count, rank, axis=0))
    numbers = op.Range(op.Constant(value_int=0), op.Squeeze(count), op.Constant(value_int=1))
    is_chosen = op.CastLike(op.Equal(op.Unsqueeze(experts, [2]), numbers), x)
    own = op.Reshape(op.Mul(op.Unsqueeze(is_chosen, [3]), u), op.Concat(t, k, flat, axis=0))
    delta = op.MatMul(own, op.Reshape(op.CastLike(b, x), op.Concat(flat, out, axis=0)))
    slots = op.Concat(op.Shape(y, end=-1), k, out, axis=0)
    return op.Add(op.Unsqueeze(y, [-2]), op.Reshape(delta, slots, allowzero=1))


@script(eptx_domain)
def ChosenExpertsMean(m, weights):  # type: ignore[no-untyped-def]
    """The mean of every token's slots, by their weights.

    Args:
        m: [..., K, in]: T tokens.
        weights: [T, K], which sum to 1.

    Returns:
        [..., in].
    """
    width = op.Shape(m, start=-1)
    slots = op.Reshape(m, op.Concat(op.Shape(weights), width, axis=0), allowzero=1)
    mean = op.MatMul(op.Unsqueeze(op.CastLike(weights, m), [1]), slots)
    return op.Reshape(mean, op.Concat(op.Shape(m, end=-2), width, axis=0), allowzero=1)


@script(eptx_domain)
def ChosenExpertsSum(y, m, experts, weights, a, b):  # type: ignore[no-untyped-def]
    """y + the sum over every token's experts e of w_e (m_e a_e) b_e; none adds nothing.

    Args:
        y: the base linear's output for the mean of the slots, [..., out].
        m: the slots, [..., K, in]: T tokens.
        experts: int64 [T, K], none below 0.
        weights: [T, K].
        a: [in, E * R].
        b: [E, R, out].
    """
    flat = op.Constant(value_ints=[-1])
    count, rank, out = op.Shape(b, start=0, end=1), op.Shape(b, start=1, end=2), op.Shape(b, start=2)
    slots = op.Reshape(m, op.Concat(op.Shape(experts), op.Shape(m, start=-1), axis=0))
    u = op.Reshape(op.MatMul(slots, op.CastLike(a, m)), op.Concat(op.Shape(experts), count, rank, axis=0))
    numbers = op.Range(op.Constant(value_int=0), op.Squeeze(count), op.Constant(value_int=1))
    is_chosen = op.CastLike(op.Equal(op.Unsqueeze(experts, [2]), numbers), m)
    share = op.Mul(is_chosen, op.Unsqueeze(op.CastLike(weights, m), [2]))
    own = op.ReduceSum(op.Mul(op.Unsqueeze(share, [3]), u), [1], keepdims=0)
    joined = op.Reshape(own, op.Concat(op.Shape(experts, start=0, end=1), flat, axis=0))
    delta = op.MatMul(joined, op.Reshape(op.CastLike(b, m), op.Concat(flat, out, axis=0)))
    return op.Add(y, op.Reshape(delta, op.Shape(y)))
