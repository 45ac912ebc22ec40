"""RoutedPyramidDelta: PyramidRouter and PyramidDelta in one, for dynamic models.

A model has such an operator at every adapted module, so that one node instead of two is worth having.
"""

from __future__ import annotations

from onnxscript import opset18 as op
from onnxscript import script

from eptx.exporter.ops.domain import delta, eptx_domain
from eptx.exporter.ops.pyramid_delta import PyramidDelta
from eptx.exporter.ops.pyramid_router import PyramidRouter


@delta("x", "task_id", calls=(PyramidRouter, PyramidDelta))
@script(eptx_domain)
def RoutedPyramidDelta(  # type: ignore[no-untyped-def]
    y, x, task_id, task_embedding, gate_weight, gate_bias, a, b, kernels, sizes, in_features: int, top_k: int
):
    """y + the update of each row's task, and how much x resembles each task.

    Args:
        y: the base linear's output, [N, ..., out].
        x: the linear's input, [N, ..., in].
        task_id: int64 [N]; -1 infers, T switches the adapter off.
        task_embedding: [T, in].
        gate_weight: [E, in].
        gate_bias: [E].
        a: [>= in // 2, R].
        b: [R, >= out // 2].
        kernels: [E, out], expert e's scaled kernel flattened to c * s_e + j, zero-padded and cut at out.
        sizes: int64 [E], the kernel sizes.
        in_features: in.
        top_k: K.

    Returns:
        y'; similarity [N, T].
    """
    experts, weights, similarity = PyramidRouter(task_id, x, task_embedding, gate_weight, gate_bias, top_k=top_k)
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    rows = op.Range(zero, op.Size(task_id), one)
    adapted = PyramidDelta(y, x, rows, experts, weights, a, b, kernels, sizes, in_features=in_features)
    return adapted, similarity
