"""Products of 8-bit integers on processors without VNNI.

AVX2 and AVX-512 without VNNI add two products of a uint8 and an int8 in 16 bits, which saturate: products of large
activations and large weights come out wrong. A session option of ONNX Runtime makes the weights uint8 on such
processors, and does nothing on others.
"""

from __future__ import annotations

import functools

import numpy as np

from eptx.providers import CPU, PROVIDERS
from eptx.runtime.ort.providers import onnxruntime
from eptx.runtime.ort.sessions import EXACT_ENTRY, open_session

_TERMS = 4
_LARGEST = np.full((1, _TERMS), 255, np.uint8), np.full((_TERMS, 1), 127, np.int8)
#: The model ``y = MatMulInteger(a [1, 4], b [4, 1])``, uint8 and int8, of opset 13.
_PRODUCT = (
    b'\x08\x08:\\\n\x18\n\x01a\n\x01b\x12\x01y"\rMatMulInteger\x12\x01pZ\x13\n\x01a\x12\x0e\n\x0c\x08\x02\x12\x08\n\x02'
    b"\x08\x01\n\x02\x08\x04Z\x13\n\x01b\x12\x0e\n\x0c\x08\x03\x12\x08\n\x02\x08\x04\n\x02\x08\x01b\x13\n\x01y\x12\x0e\n"
    b"\x0c\x08\x06\x12\x08\n\x02\x08\x01\n\x02\x08\x01B\x04\n\x00\x10\r"
)


@functools.cache
def saturates() -> bool:
    """Whether this processor's products of 8-bit integers saturate: ONNX Runtime computes the largest one."""
    session = open_session(_PRODUCT, onnxruntime().SessionOptions())  # without the entry
    a, b = _LARGEST
    (y,) = session.run(None, {"a": a, "b": b})
    return int(y.item()) != _TERMS * 255 * 127


def describe_integer_products(provider: str, *, own_options: bool) -> str:
    """How a session runs products of 8-bit integers, for people.

    Args:
        provider: eptx's name of it.
        own_options: whether the caller gave the session's options.
    """
    if provider != CPU:
        return "exact" if PROVIDERS[provider].exact_integers else f"not known of provider {provider}"
    if not saturates():
        return "exact"
    if own_options:
        (entry,) = EXACT_ENTRY
        return f"saturate: this processor has no VNNI; add the session entry {entry}=1 to your session_options"
    return "exact, with weights as uint8: this processor has no VNNI"
