"""What Falcon's ALiBi needs of an export; `python -m tests.matrix "Falcon, ALiBi"` compares bundles with PEFT."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch

from eptx.exporter.bases.passes.bfloat16 import widen_bfloat16


def test_bfloat16_arithmetic_has_pytorchs_bits() -> None:
    """ONNX Runtime alone has no kernel for it."""
    graph = """
        <ir_version: 8, opset_import: ["" : 18]>
        scores (int64[n] places, float[1] slope) => (float[n] y)
        {
          p = Cast <to = 16> (places)
          s = Cast <to = 16> (slope)
          product = Mul (s, p)
          y = Cast <to = 1> (product)
        }
    """
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(graph)))
    widen_bfloat16(model)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    places = np.arange(3000)
    for slope in (0.25, 0.3, 1 / 3, 0.00390625, 7.7):
        (found,) = session.run(None, {"places": places, "slope": np.array([slope], np.float32)})
        wanted = (torch.tensor([slope]).bfloat16() * torch.from_numpy(places)).float().numpy()
        np.testing.assert_array_equal(found, wanted)
