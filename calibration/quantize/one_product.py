"""One product as a model of its own, quantized by ONNX Runtime's quantizers.

On a whole graph they refuse operators of other domains, infer shapes without need, and hold several copies of all
weights. One product avoids all of this, takes milliseconds, and can be reused.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from eptx.exporter.quiet import quiet

#: The activation, the weight and the output.
X, WEIGHT, Y = "x", "weight", "y"
#: Has 4-bit integers and quantization in blocks, and is no later than eptx's own functions.
_OPSET = 21


def product_model(weight: np.ndarray) -> ir.Model:
    """``y = x W``: x float32 [rows, in], the weight float32 [in, out] inside."""
    x = ir.val(X, ir.DataType.FLOAT, ["rows", weight.shape[0]])
    array = np.ascontiguousarray(weight, dtype=np.float32)
    stored = ir.val(WEIGHT, const_value=ir.Tensor(array, name=WEIGHT))
    node = ir.node("MatMul", [x, stored], name="product")
    y = node.outputs[0]
    y.name, y.type, y.shape = Y, ir.TensorType(ir.DataType.FLOAT), ir.Shape(["rows", weight.shape[1]])
    graph = ir.Graph([x], [y], nodes=[node], initializers=[stored], opset_imports={"": _OPSET}, name=WEIGHT)
    return ir.Model(graph, ir_version=10)


def dynamic_int8(weight: np.ndarray) -> ir.Model:
    """Weights int8 per output feature; activations uint8, to the range of each call."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet(), tempfile.TemporaryDirectory(prefix="eptx-") as folder:
        path = Path(folder) / "product.onnx"
        quantize_dynamic(
            ir.to_proto(product_model(weight)),
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        return load_product(path)


def static_int8(weight: np.ndarray, low: float, high: float) -> ir.Model:
    """Weights int8 per output feature; activations uint8, to the range [low, high]; the output is float32."""
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData

    ranges = {X: TensorData(lowest=np.float32(low), highest=np.float32(high))}
    with quiet():
        quantizer = QDQQuantizer(
            ir.to_proto(product_model(weight)),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=["MatMul"],
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
        quantizer.quantize_model()
    return sorted_model(quantizer.model.model)


def blocks(weight: np.ndarray, bits: int, block: int) -> ir.Model:
    """Weights of 4 or 8 bits in blocks along the input; activations int8, each block to its own range."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with quiet():
        quantizer = MatMulNBitsQuantizer(
            ir.to_proto(product_model(weight)), bits=bits, block_size=block, is_symmetric=True, accuracy_level=4
        )
        quantizer.process()
    return sorted_model(quantizer.model.model)


def sorted_model(proto: Any) -> ir.Model:
    """A quantizer's result, its nodes in order."""
    model: ir.Model = ir.from_proto(proto)
    model.graph.sort()  # the quantizers append what comes first
    return model


def load_product(path: Path) -> ir.Model:
    """A quantizer's file, read whole: it is in a temporary folder."""
    return sorted_model(ir.to_proto(ir.load(path)))
