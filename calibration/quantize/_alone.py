"""One product as a model of its own, which ONNX Runtime's quantizers take, whatever graph it comes from.

They refuse a graph with operators of other domains, infer shapes that they do not need, and hold several copies of all
weights. A product by itself has none of these troubles, is quantized in milliseconds, and may be kept.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

#: The activation, the weight and the output.
X, WEIGHT, Y = "x", "weight", "y"
#: Has 4-bit integers and quantization in blocks, and is no later than eptx's own functions.
_OPSET = 21


def alone(weight: np.ndarray) -> ir.Model:
    """``y = x W``: x float32 [rows, in], the weight float32 [in, out] inside."""
    tensor = ir.Tensor(np.ascontiguousarray(weight, dtype=np.float32), name=WEIGHT)
    x, stored = _value(X, ["rows", weight.shape[0]]), _value(WEIGHT, list(weight.shape))
    stored.const_value = tensor
    node = ir.node("MatMul", [x, stored], name="product")
    y = node.outputs[0]
    y.name, y.type, y.shape = Y, ir.TensorType(ir.DataType.FLOAT), ir.Shape(["rows", weight.shape[1]])
    graph = ir.Graph([x], [y], nodes=[node], initializers=[stored], opset_imports={"": _OPSET}, name=WEIGHT)
    return ir.Model(graph, ir_version=10)


def dynamic_int8(weight: np.ndarray) -> ir.Model:
    """Weights int8 per output feature; activations uint8, to the range of each call."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet(), tempfile.TemporaryDirectory(prefix="eptx-") as folder:
        path = Path(folder) / "product.onnx"
        quantize_dynamic(
            ir.to_proto(alone(weight)),
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        return _read(path)


def static_int8(weight: np.ndarray, low: float, high: float) -> ir.Model:
    """Weights int8 per output feature; activations uint8, to the range [low, high]; the output is float32."""
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData

    ranges = {X: TensorData(lowest=np.float32(low), highest=np.float32(high))}
    with _quiet():
        quantizer = QDQQuantizer(
            ir.to_proto(alone(weight)),
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
    return _model(quantizer.model.model)


def blocks(weight: np.ndarray, bits: int, block: int) -> ir.Model:
    """Weights of 4 or 8 bits in blocks along the input; activations int8, each block to its own range."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with _quiet():
        quantizer = MatMulNBitsQuantizer(
            ir.to_proto(alone(weight)), bits=bits, block_size=block, is_symmetric=True, accuracy_level=4
        )
        quantizer.process()
    return _model(quantizer.model.model)


def _value(name: str, shape: list[int | str]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))


def _model(proto: Any) -> ir.Model:
    model: ir.Model = ir.from_proto(proto)
    model.graph.sort()  # the quantizers append what comes first
    return model


def _read(path: Path) -> ir.Model:
    """A file that will not stay."""
    return _model(ir.to_proto(ir.load(path)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the quantizers log and warn about."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
