"""Every quantizer's own weights keep to a rule; a scale, a zero point or a code that does not is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from eptx.calibration.quantize.embedding_table import quantize_rows
from eptx.exporter.validation.quantized.codes import Codes, of_rows
from eptx.exporter.validation.quantized.rule import fault
from tests.exporter.validation.quantized.quantizers import Quantizer, quantizers, restored, stored

QUANTIZERS = dict(quantizers())
SHAPE = 192, 34


def draw(kind: str, seed: int) -> np.ndarray:
    """A weight [in, out]."""
    rng = np.random.default_rng(seed)
    if kind == "heavy tails":
        return rng.standard_t(2, SHAPE).astype(np.float32)
    weight = rng.standard_normal(SHAPE).astype(np.float32)
    if kind == "zeros":
        weight[:, 3], weight[32:96] = 0, 0
    if kind == "off the middle":
        weight += np.float32(0.7)
    if kind == "tiny":
        weight *= np.float32(1e-6)
    return weight


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "zeros", "off the middle", "tiny"])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_what_quantizers_store(name: str, kind: str) -> None:
    for seed in range(3):
        weight = draw(kind, seed)
        assert fault(stored(QUANTIZERS[name], weight), weight.T) is None


def test_rows_of_a_table() -> None:
    weight = draw("zeros", 0)
    rows, scales = quantize_rows(weight)
    codes = of_rows(rows, scales.reshape(-1), None)
    assert fault(codes, weight) is None
    scales[5] *= 127  # the largest is 1
    found = fault(restored(codes, weight, scales), weight, "row")
    assert found is not None
    assert (found.row, found.message[:20]) == (5, "row 5: its scale is ")


def test_a_weight_with_a_task_in_it_is_rounded_to_float32() -> None:
    weight = np.random.default_rng(0).standard_normal(SHAPE) * (1 + 1e-9)
    for quantizer in QUANTIZERS.values():
        assert fault(stored(quantizer, weight.astype(np.float32)), weight.T) is None


Damage = Callable[[Codes, np.ndarray], Codes]


def _scale(codes: Codes, weight: np.ndarray, factor: float, rows: slice = slice(None)) -> Codes:
    scale = codes.scale.copy()
    scale[rows] *= np.float32(factor)
    return restored(codes, weight, scale)


def ternary(codes: Codes, weight: np.ndarray) -> Codes:
    largest = np.abs(codes.grouped(weight)).max(-1)
    return restored(codes, weight, largest)


def clipped(codes: Codes, weight: np.ndarray) -> Codes:
    return _scale(codes, weight, 0.5)


def doubled(codes: Codes, weight: np.ndarray) -> Codes:
    return _scale(codes, weight, 2.0)


def one_feature(codes: Codes, weight: np.ndarray) -> Codes:
    return _scale(codes, weight, 3.0, slice(7, 8))


def scale_alone(codes: Codes, weight: np.ndarray) -> Codes:
    return replace(codes, scale=codes.scale * np.float32(1.05))


def shifted(codes: Codes, weight: np.ndarray) -> Codes:
    return replace(codes, codes=np.clip(codes.codes + 1, codes.low, codes.high))


def one_code(codes: Codes, weight: np.ndarray) -> Codes:
    numbers = codes.codes.copy()
    numbers[11, 40] += 2 if numbers[11, 40] < codes.high - 1 else -2
    return replace(codes, codes=numbers)


def zero_point(codes: Codes, weight: np.ndarray) -> Codes:
    zero = codes.zero.copy()
    zero[2 % len(zero), 0] += 1
    return replace(codes, zero=zero)


def no_number(codes: Codes, weight: np.ndarray) -> Codes:
    scale = codes.scale.copy()
    scale[0, 0] = np.nan
    return replace(codes, scale=scale)


DAMAGES: list[tuple[Damage, str]] = [
    (ternary, "its scale is"),
    (clipped, "its scale is"),
    (doubled, "its scale is"),
    (one_feature, "output feature 7"),
    (scale_alone, "its scale is"),
    (shifted, "holds code"),
    (one_code, "output feature 11, input 40: holds code"),
    (zero_point, "its zero point is"),
    (no_number, "its scale is nan"),
]
STORED = [
    "int8",
    "int8-static",
    "blocks of 8 bits",
    "blocks of 4 bits",
    "blocks of 4 bits with zero points",
    "k_quant 4",
]


SEARCHED = ["blocks of 4 bits with zero points", "k_quant 4"]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("name", STORED)
def test_what_no_quantizer_stores(name: str, damage: Damage, said: str) -> None:
    for seed in range(2):
        weight = draw("normal", seed)
        codes = stored(QUANTIZERS[name], weight)
        found = fault(damage(codes, weight.T), weight.T)
        assert found is not None
        if name not in SEARCHED or damage is one_feature:  # a searched scale may be right, and its codes not
            assert said in found.message


def test_a_searched_scale_may_not_lose_much() -> None:
    """Scales of a quarter more, in blocks of their own rule, are no rule's; their error is."""
    weight = draw("normal", 0)
    codes = stored(QUANTIZERS["k_quant 4"], weight)
    assert fault(restored(codes, weight.T, codes.scale * 1.02), weight.T) is None
    assert fault(restored(codes, weight.T, codes.scale * 1.4), weight.T) is not None


def test_another_weight_of_the_same_ranges() -> None:
    weight = draw("normal", 0)
    quantizer: Quantizer = QUANTIZERS["int8"]
    found = fault(stored(quantizer, weight[::-1]), weight.T)
    assert found is not None
    assert "holds code" in found.message
