"""What ONNX Runtime's fusions leave, and what is mended behind them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from eptx.exporter.bases.passes.fuse import _drop_unread_sums, _turn_batches

_TURNED = """
<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>
g (float[batch, 4, 6] x, float[5, 6] weight) => (float[length, batch, width] y)
{
  y = com.microsoft.FusedMatMul <transB = 1, transBatchA = 1> (x, weight)
}
"""


def test_a_batch_that_a_product_cannot_turn_is_turned_before_it() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(3, 4, 6)).astype(np.float32), rng.normal(size=(5, 6)).astype(np.float32)
    model = ir.from_proto(onnx.parser.parse_model(_TURNED))
    _turn_batches(model.graph)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        session.run(None, {"x": x, "weight": weight})[0], x.transpose(1, 0, 2) @ weight.T, rtol=1e-5
    )


_NORMS = """
<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>
g (float[2, 3, 4] x, float[4] weight) => (float[2, 3, 4] y, float[2, 3, 4] sum)
{
  first, mean, deviation, unread = com.microsoft.SkipLayerNormalization (x, x, weight)
  y, mean2, deviation2, sum = com.microsoft.SkipLayerNormalization (first, x, weight)
}
"""


def test_a_sum_that_nothing_reads_is_not_named() -> None:
    model = ir.from_proto(onnx.parser.parse_model(_NORMS))
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32), "weight": np.ones(4, np.float32)}

    def outputs() -> list[np.ndarray]:
        session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
        return list(session.run(None, feeds))

    before = outputs()
    _drop_unread_sums(model.graph)
    assert [[value.name for value in node.outputs] for node in model.graph] == [
        ["first"],
        ["y", "mean2", "deviation2", "sum"],
    ]
    for old, new in zip(before, outputs(), strict=True):
        np.testing.assert_array_equal(old, new)
