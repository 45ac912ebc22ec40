"""PyramidRouter: EPT's router, task ids to experts and weights, inferring the task where the id is negative.

    p = softmax(G tau_task + g);  experts = the K largest of p;  weights = softmax(p[experts])

Softmax is applied twice, as the released code does. Training pulls a module's input at position 0 towards its
task's embedding, so for id -1 the task is the one whose embedding has the largest cosine with that input.
The routes of all tasks depend on constants alone and are folded when the session opens.
"""

from __future__ import annotations

from onnxscript import opset18 as op
from onnxscript import script

from eptx.exporter.ops.domain import eptx_domain


@script(eptx_domain)
def PyramidRouter(task_id, x, task_embedding, gate_weight, gate_bias, top_k: int):  # type: ignore[no-untyped-def]
    """Experts and weights of each row's task, and how much its input resembles each task.

    Args:
        task_id: int64 [N]; -1 infers, T (one past the last task) switches the adapter off.
        x: the module's input, [N, ..., in].
        task_embedding: [T, in].
        gate_weight: [E, in].
        gate_bias: [E].
        top_k: K.

    Returns:
        experts int64 [N, K]; weights [N, K]; similarity [N, T], the cosine of x's position 0 with each embedding,
        or zeros when no row is to be inferred.
    """
    towards = op.MatMul(task_embedding, op.Transpose(gate_weight, perm=[1, 0]))
    gate = op.Add(towards, gate_bias)
    top, chosen = op.TopK(op.Softmax(gate, axis=-1), op.Reshape(op.Constant(value_int=top_k), [1]))
    mixing = op.Softmax(top, axis=-1)
    n = op.Shape(task_id)
    tasks = op.Shape(task_embedding, start=0, end=1)
    unknown = op.Less(task_id, 0)
    if op.Cast(op.ReduceMax(op.Cast(unknown, to=7), keepdims=0), to=9):
        tiny = op.CastLike(op.Constant(value_float=1e-12), task_embedding)
        length = op.Sqrt(op.ReduceSum(op.Mul(task_embedding, task_embedding), [1]))
        unit = op.Div(task_embedding, op.Max(length, tiny))
        x_n = op.Reshape(x, op.Concat(n, op.Constant(value_ints=[-1]), op.Shape(x, start=-1), axis=0))
        first = op.CastLike(op.Squeeze(op.Slice(x_n, [0], [1], [1]), [1]), task_embedding)
        norm = op.Sqrt(op.ReduceSum(op.Mul(first, first), [1]))
        similarity = op.Div(op.MatMul(first, op.Transpose(unit, perm=[1, 0])), op.Max(norm, tiny))
    else:
        zero = op.CastLike(op.Constant(value_float=0.0), task_embedding)
        similarity = op.Expand(zero, op.Concat(n, tasks, axis=0))
    # after the branch, which may assign one name only: onnxscript orders several by their hashes
    task = op.Where(unknown, op.ArgMax(similarity, axis=1, keepdims=0), task_id)
    active = op.CastLike(op.Unsqueeze(op.Less(task, tasks), [1]), task_embedding)
    row = op.Min(task, op.Sub(tasks, 1))
    return op.Gather(chosen, row), op.Mul(op.Gather(mixing, row), active), similarity
