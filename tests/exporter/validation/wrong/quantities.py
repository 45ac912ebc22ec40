# ruff: noqa: E501 (a table: one kind in a line)
"""Quantized weights, scales, zero points, tables and activation ranges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from tests.exporter.validation.wrong.edits import (
    Damage,
    filled,
    graph,
    initializer,
    manifest,
    numbers,
    put,
    scaled,
    set_numbers,
    swapped,
)
from tests.exporter.validation.wrong.kind import Kind

_FEED, _QUERY = "encoder.layer.0.intermediate.dense/MatMul", "encoder.layer.1.attention.self.query/MatMul"
_WHERE = "intermediate.dense|self.query"


def _coarse(steps: int) -> Callable[[ir.Graph, str], None]:
    """A product's weight on fewer steps, each number still within half of one: 1 gives -1, 0 and 1."""

    def change(found: ir.Graph, product: str) -> None:
        codes = initializer(found, f"{product}.weight_quantized")
        scale = initializer(found, f"{product}.weight_scale")
        assert codes.const_value is not None and scale.const_value is not None
        weight = codes.const_value.numpy() * scale.const_value.numpy()
        step = np.abs(weight).max(axis=0) / steps
        set_numbers(codes, lambda old: np.round(weight / step))
        set_numbers(scale, lambda old: step)

    return change


def _every(change: Callable[[ir.Graph, str], None]) -> Damage:
    """Every product of the graph."""

    def all_of(found: ir.Graph) -> None:
        for name in [name for name in found.initializers if name.endswith(".weight_quantized")]:
            change(found, name.removesuffix(".weight_quantized"))

    return graph(all_of)


def _coarse_blocks(found: ir.Graph) -> None:
    """int4 on steps three times as large, each number still within half of one."""
    codes, scale = initializer(found, f"{_FEED}.weight_Q4"), initializer(found, f"{_FEED}.weight_scales")
    set_numbers(codes, lambda old: _packed(8 + np.round((_codes(old) - 8) / 3.0)))
    set_numbers(scale, scaled(3.0))


def _codes(packed: np.ndarray) -> np.ndarray:
    """Numbers of 4 bits, the lower half of a byte first, float64 [.., 2 n]."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1).astype(np.float64)


def _packed(codes: np.ndarray) -> np.ndarray:
    pairs = np.clip(codes, 0, 15).astype(np.uint8).reshape(*codes.shape[:-1], -1, 2)
    return np.asarray(pairs[..., 0] | pairs[..., 1] << 4)


def _shifted(array: np.ndarray) -> np.ndarray:
    """Codes of one column one too large, where there is room."""
    array[:, 3] = np.minimum(array[:, 3].astype(int) + 1, 127)
    return array


def _turned(array: np.ndarray) -> np.ndarray:
    """One column with the other sign."""
    array[:, 3] = -np.maximum(array[:, 3].astype(int), -127)
    return array


def _narrow(factor: float, *parts: str) -> Damage:
    """Activation scales, of all products or some."""

    def change(found: ir.Graph) -> None:
        for name, value in found.initializers.items():
            if name.endswith(".x_scale") and all(part in name for part in parts):
                set_numbers(value, scaled(factor))

    return graph(change)


def _signs(found: ir.Graph) -> None:
    """A table's rows are their signs alone, each number within half a step."""
    codes, scale = initializer(found, "node_embedding.int8"), initializer(found, "node_embedding.scale")
    assert codes.const_value is not None and scale.const_value is not None
    rows = codes.const_value.numpy() * scale.const_value.numpy()
    step = np.abs(rows).max(axis=1, keepdims=True)
    set_numbers(codes, lambda old: np.round(rows / step))
    set_numbers(scale, lambda old: step)


def _nibbles(array: np.ndarray) -> np.ndarray:
    """One block's codes one place on."""
    array[3, 0] = np.roll(array[3, 0], 1)
    return array


KINDS = (
    Kind("one product of ternary weights", "int8", graph(lambda g: _coarse(1)(g, f"/{_FEED}")), _WHERE),
    Kind("ternary weights", "int8", _every(_coarse(1)), _WHERE),
    Kind("weights of 4 bits said to be 8", "int8", _every(_coarse(7)), _WHERE),
    Kind("one product on half the steps", "int8", graph(lambda g: _coarse(60)(g, f"/{_QUERY}")), _WHERE),
    Kind("ternary weights, static ranges", "int8 static", _every(_coarse(1)), _WHERE),
    Kind("a scale doubled", "int8", numbers(scaled(2.0, 3), f"{_FEED}.weight_scale"), _WHERE),
    Kind("a scale off by a hundredth", "int8", numbers(scaled(1.01), f"{_FEED}.weight_scale"), _WHERE),
    Kind("codes of a column one too large", "int8", numbers(_shifted, f"{_QUERY}.weight_quantized"), _WHERE),
    Kind("a column's sign", "int8", numbers(_turned, f"{_QUERY}.weight_quantized"), _WHERE),
    Kind("two columns swapped", "int8", numbers(swapped(3, 4, axis=1), f"{_QUERY}.weight_quantized"), _WHERE),
    Kind("a weight's zero point", "int8 static", numbers(filled(3, 3), f"{_QUERY}.weight_zero_point"), _WHERE),
    Kind("activations x 0.01", "int8 static", _narrow(0.01), "layer|range|scale"),
    Kind("one module's activations x 0.1", "int8 static", _narrow(0.1, "layer.1.output.dense"), "layer.1.output.dense"),
    Kind("activations x 50", "int8 static", _narrow(50.0), "layer|range|scale"),
    Kind("an activation's zero point", "int8 static", numbers(filled(0), f"{_FEED}.x_zero_point"), _WHERE),
    Kind("one block of int4", "int4", numbers(_nibbles, f"{_FEED}.weight_Q4"), _WHERE),
    Kind("a block's scale", "int4", numbers(scaled(1.3, 3), f"{_FEED}.weight_scales"), _WHERE),
    Kind("int4 on a third of the steps", "int4", graph(_coarse_blocks), _WHERE),
    Kind("one block of 8 bits", "int8 blocks", numbers(_nibbles, f"{_FEED}.weight_Q8"), _WHERE),
    Kind("a decoder's block", "llama int4", numbers(_nibbles, "layers.1.mlp.up_proj.MatMul.weight_Q4"), "layers.1.mlp.up_proj"),
    Kind("a decoder's scale", "llama int4", numbers(scaled(1.5, 3), "layers.1.mlp.up_proj.MatMul.weight_scales"), "layers.1.mlp.up_proj"),
    Kind("the tied head's block", "llama int4", numbers(_nibbles, "lm_head.MatMul.weight_Q4"), "lm_head|embed"),
    Kind("a table's row scale", "int8", numbers(scaled(2.0, 100), "node_embedding.scale"), "word_embeddings|embedding"),
    Kind("two rows of a table swapped", "int8", numbers(swapped(100, 101), "node_embedding.int8"), "word_embeddings|embedding"),
    Kind("a table of signs", "int8", graph(_signs), "word_embeddings|embedding"),
    Kind("rows of positions past 64", "int8", numbers(filled(0, slice(64, None)), "node_embedding_2.int8"), "position_embeddings"),
    Kind("an unquantized norm", "int8", numbers(scaled(1.01), "encoder.layer.1.output.LayerNorm.weight"), "Norm|task"),
    Kind("int8 said of int4", "int4", manifest(put(precision="int8")), "precision"),
)  # fmt: skip
