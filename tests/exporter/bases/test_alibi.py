"""What Falcon's ALiBi needs of an export; `python -m tests.matrix "Falcon, ALiBi"` compares bundles with PEFT."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from transformers import FalconConfig, FalconForCausalLM

from eptx.exporter.bases.loaders.decoder import _adds_alibi_twice
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


def test_eager_attention_is_not_what_transformers_takes() -> None:
    """When this fails, transformers has mended it, and `_adds_alibi_twice` has no use any more."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = torch.arange(12)[None]
    for alibi in (True, False):
        model = FalconForCausalLM(FalconConfig(**sizes, alibi=alibi, initializer_range=0.5)).eval()
        assert model.config._attn_implementation == "sdpa"
        with torch.no_grad():
            taken = model(input_ids=ids).logits
            model.set_attn_implementation("eager")
            eager = model(input_ids=ids).logits
        assert _adds_alibi_twice(model.config) == alibi
        assert (float((taken - eager).abs().max()) > 1e-3) == alibi
