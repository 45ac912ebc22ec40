"""MatMulNBits: ONNX Runtime's product with a weight in blocks of 2 to 8 bits, as its quantizer and GenAI write it.

B [N, blocks, block_size * bits / 8] holds W [N, K] along K, the low bits of a byte first; W = (B - zero point) * scale
of its block. Without zero points it is 2^(bits - 1). (onnxruntime, docs/ContribOperators.md, com.microsoft.MatMulNBits)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def is_nbits(node: ir.Node) -> bool:
    """Whether a node is a MatMulNBits."""
    return node.op_type == "MatMulNBits" and node.domain == "com.microsoft"


def nbits_shape(node: ir.Node) -> tuple[int, int]:
    """[K, N]: features in and out."""
    return node.attributes["K"].as_int(), node.attributes["N"].as_int()


def has_bias(node: ir.Node) -> bool:
    """Whether the product adds a bias itself."""
    return len(node.inputs) > 5 and node.inputs[5] is not None


def dequantize(node: ir.Node) -> np.ndarray | None:
    """The weight that the node multiplies by, float32 [N, K]; None where the graph has it not, or in another layout."""
    bits, size = node.attributes["bits"].as_int(), node.attributes["block_size"].as_int()
    packed, scale = _array(node, 1), _scales(node)
    if packed is None or scale is None or bits not in (2, 4, 8) or _array(node, 4) is not None:
        return None
    k, n = nbits_shape(node)
    blocks = scale.shape[1]
    values = _unpack(packed.reshape(n, -1), bits).reshape(n, blocks, size).astype(np.float32)
    zeros = _zero_points(node, bits, n, blocks)
    return np.ascontiguousarray(((values - zeros) * scale[:, :, None]).reshape(n, blocks * size)[:, :k])


def step(node: ir.Node) -> np.ndarray | None:
    """What one step of each value is worth, float32 [N, K]; None where the graph does not hold it.

    Quantizers that search for a block's scale (k_quant) cut off values at the ends of a range with zero points, by up
    to two steps: there it is that much.
    """
    scale = _scales(node)
    if scale is None:
        return None
    k, n = nbits_shape(node)
    packed, bits, half = _array(node, 1), node.attributes["bits"].as_int(), 2.0**-11
    spread: np.ndarray = np.repeat(np.abs(scale), node.attributes["block_size"].as_int(), axis=1)[:, :k]
    if _is_half(node):  # graphs for CUDA: the weight was rounded to float16 first, and so is the scale
        spread = spread * (1 + 2 ** (bits - 1) * 2 * half)
    if packed is None or _array(node, 3) is None or bits not in (2, 4, 8):
        return spread
    codes = _unpack(packed.reshape(n, -1), bits)[:, :k]
    return np.where((codes == 0) | (codes == 2**bits - 1), 2 * spread, spread)


def _scales(node: ir.Node) -> np.ndarray | None:
    """float32 [N, blocks]."""
    scale = _array(node, 2)
    return None if scale is None else scale.astype(np.float32).reshape(nbits_shape(node)[1], -1)


def _is_half(node: ir.Node) -> bool:
    stored = _array(node, 2)
    return stored is not None and stored.dtype == np.float16


def _zero_points(node: ir.Node, bits: int, n: int, blocks: int) -> np.ndarray:
    stored = _array(node, 3)
    if stored is None:
        return np.full((n, blocks, 1), 2 ** (bits - 1), np.float32)
    if stored.dtype != np.uint8:
        return stored.astype(np.float32).reshape(n, blocks, 1)
    return _unpack(stored.reshape(n, -1), bits)[:, :blocks].astype(np.float32)[:, :, None]


def _unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    """Bytes [N, M] as numbers [N, M * 8 / bits]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((packed[:, :, None] >> shifts) & np.uint8(2**bits - 1)).reshape(len(packed), -1)


def _array(node: ir.Node, index: int) -> np.ndarray | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None or value.const_value is None else value.const_value.numpy()
