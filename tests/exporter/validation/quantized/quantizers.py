"""Weights as the quantizers that people use store them: ONNX Runtime's, and those that GenAI's builder calls."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxruntime.quantization import QuantType, matmul_nbits_quantizer, quantize_dynamic

from eptx.calibration.quantize import one_product
from eptx.exporter.bases.products.products import find_products
from eptx.exporter.validation.quantized.codes import Codes, read_codes

Quantizer = Callable[[np.ndarray], ir.Model]


def dynamic(weight: np.ndarray, **options: Any) -> ir.Model:
    """``quantize_dynamic`` as a user calls it; the weight is [in, out]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "product.onnx"
        quantize_dynamic(
            ir.to_proto(one_product.product_model(weight)), path, op_types_to_quantize=["MatMul"], **options
        )
        return one_product.load_product(path)


def blocks(weight: np.ndarray, **options: Any) -> ir.Model:
    """``MatMulNBitsQuantizer`` as a user or GenAI's builder calls it."""
    quantizer = matmul_nbits_quantizer.MatMulNBitsQuantizer(ir.to_proto(one_product.product_model(weight)), **options)
    quantizer.process()
    return one_product.sorted_model(quantizer.model.model)


def _searched(algorithm: str, bits: int, symmetric: bool) -> Quantizer:
    kinds: dict[str, Any] = {
        "rtn": matmul_nbits_quantizer.RTNWeightOnlyQuantConfig,
        "k_quant": matmul_nbits_quantizer.KQuantWeightOnlyQuantConfig,
    }
    config = kinds[algorithm](customized_weight_config={"product": {"bits": bits}})
    return lambda w: blocks(w, bits=bits, block_size=32, is_symmetric=symmetric, algo_config=config)


def quantizers() -> Iterator[tuple[str, Quantizer]]:
    """Name and quantizer."""
    yield "int8", one_product.dynamic_int8
    yield "int8-static", lambda w: one_product.static_int8(w, -3.0, 3.0)
    for bits, block in ((8, 128), (4, 32), (2, 32)):
        yield f"blocks of {bits} bits", lambda w, bits=bits, block=block: one_product.blocks(w, bits, block)  # type: ignore[misc]
    for per_channel, kind, reduced, symmetric in product(
        (False, True), (QuantType.QInt8, QuantType.QUInt8), (False, True), (None, True, False)
    ):
        more = {} if symmetric is None else {"WeightSymmetric": symmetric}
        options = {"per_channel": per_channel, "weight_type": kind, "reduce_range": reduced, "extra_options": more}
        yield f"dynamic {per_channel} {kind} {reduced} {symmetric}", lambda w, o=options: dynamic(w, **o)  # type: ignore[misc]
    for bits in (4, 8):
        yield f"blocks of {bits} bits with zero points", lambda w, b=bits: blocks(w, bits=b, is_symmetric=False)  # type: ignore[misc]
        yield f"k_quant {bits}", _searched("k_quant", bits, True)
        for symmetric in (False, True):
            yield f"rtn {bits} {symmetric}", _searched("rtn", bits, symmetric)
    hqq = matmul_nbits_quantizer.HQQWeightOnlyQuantConfig(block_size=32, bits=4)
    yield "hqq", lambda w: blocks(w, algo_config=hqq)


def stored(quantizer: Quantizer, weight: np.ndarray) -> Codes:
    """The codes of a weight [in, out]."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            codes = read_codes(find_products(quantizer(weight).graph)[-1])
    finally:
        logging.disable(level)
    assert codes is not None
    return codes


def restored(codes: Codes, weight: np.ndarray, scale: np.ndarray) -> Codes:
    """What a quantizer with other scales would store of a weight [out, in], every code the nearest."""
    other = replace(codes, scale=scale.astype(np.float32))
    nearest = np.rint(weight / other.spread(other.scale) + other.spread(other.zero))
    return replace(other, codes=np.clip(nearest, codes.low, codes.high).astype(np.int32))
