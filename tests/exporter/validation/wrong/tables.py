# ruff: noqa: E501 (a table: one kind in a line)
"""Tables: embeddings, positions, rotary caches, relative biases, tied heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from tests.exporter.validation.wrong.edits import (
    Damage,
    constant,
    filled,
    graph,
    initializer,
    nodes,
    numbers,
    scaled,
    set_numbers,
    swapped,
    zeroed,
)
from tests.exporter.validation.wrong.kind import Kind

_ROTARY = ("cos_cache", "sin_cache")


def _rotary(start: int, factor: float) -> Damage:
    """Both caches multiplied from a position on."""

    def change(found: ir.Graph) -> None:
        for name in _ROTARY:
            set_numbers(initializer(found, name), scaled(factor, slice(start, None)))

    return graph(change)


def _cut(length: int) -> Damage:
    """Both caches end earlier than the model's positions."""

    def change(found: ir.Graph) -> None:
        for name in _ROTARY:
            value = initializer(found, name)
            assert value.const_value is not None
            shorter = value.const_value.numpy()[:length].copy()
            value.const_value, value.shape = ir.Tensor(shorter, name=name), ir.Shape(shorter.shape)

    return graph(change)


def _other_theta(found: ir.Graph) -> None:
    """Angles of theta 11000, not 10000."""
    cos = initializer(found, "cos_cache")
    assert cos.const_value is not None
    rows, half = cos.const_value.numpy().shape
    angles = np.arange(rows)[:, None] * 11000.0 ** (-np.arange(half) / half)
    set_numbers(cos, lambda old: np.cos(angles))
    set_numbers(initializer(found, "sin_cache"), lambda old: np.sin(angles))


def _rolled(start: int) -> Damage:
    """Rows of the position table come one too late from a place on."""

    def roll(array: np.ndarray) -> np.ndarray:
        array[start:] = np.roll(array[start:], 1, axis=0)
        return array

    return numbers(roll, "position_embeddings")


def _untied(row: int) -> Damage:
    """The embeddings are no longer the head's weight: one row of theirs is another's."""

    def change(found: ir.Graph) -> None:
        weight = initializer(found, "lm_head.MatMul.weight")
        assert weight.const_value is not None
        table = weight.const_value.numpy().T.copy()
        table[row] = table[row - 1]
        look_up = next(node for node in nodes(found, "Gather") if "embed_tokens" in (node.name or ""))
        look_up.replace_input_with(0, constant(found, "model.embed_tokens.weight", table))

    return graph(change)


def _head_row(path: Path) -> None:
    """A column of a head that is no copy of the embeddings: one word is answered for another."""
    numbers(swapped(110, 111, axis=1), "lm_head.MatMul.weight")(path)


KINDS = (
    Kind("position rows from 64 on zeroed", "bert", numbers(zeroed(slice(64, None)), "position_emb"), "position_emb", today="passes"),
    Kind("last position row zeroed", "bert", numbers(zeroed(-1), "position_embeddings"), "position_embeddings", today="passes"),
    Kind("position rows shifted past 70", "roberta", _rolled(70), "position_embeddings", today="passes"),
    Kind("two rare words swapped", "bert", numbers(swapped(100, 101), "word_embeddings"), "word_embeddings", today="unnamed"),
    Kind("one word zeroed", "heads", numbers(zeroed(117), "word_embeddings"), "word_embeddings", today="unnamed"),
    Kind("padding word not the base's", "roberta", numbers(filled(3.0, 1), "word_embeddings"), "word_embeddings", today="passes"),
    Kind("rare word of a decoder", "mistral", numbers(swapped(118, 119), "embed_tokens"), "embed_tokens|embeddings", today="unnamed"),
    Kind("token types swapped", "bert", numbers(swapped(0, 1), "token_type"), "token_type|query"),
    Kind("second token type zeroed", "bert", numbers(zeroed(1), "token_type_embeddings"), "token_type|query"),
    Kind("rotary cache cut at 210", "llama", _cut(210), "cos_cache|sin_cache|rotary", today="passes"),
    Kind("rotary cache zero from 210 on", "llama", _rotary(210, 0.0), "cos_cache|sin_cache|rotary", today="passes"),
    Kind("rotary cache scaled from 220 on", "qwen2", _rotary(220, 1.01), "cos_cache|sin_cache|rotary", today="passes"),
    Kind("rotary cache of another theta", "qwen2", graph(_other_theta), "cos_cache|sin_cache|rotary|task"),
    Kind(
        "relative bias: two near buckets",
        "t5",
        numbers(swapped(1, 2), "relative", file="encoder.onnx"),
        "relative|task",
    ),
    Kind("relative bias: the farthest bucket", "t5", numbers(zeroed(7), "relative_attention_bias"), "relative|task"),
    Kind("relative positions: a far row", "deberta", numbers(zeroed(15), "rel_embeddings"), "rel_embeddings|task"),
    Kind("relative positions: a near row", "deberta", numbers(zeroed(9), "rel_embeddings"), "rel_embeddings|task"),
    Kind("patch positions swapped", "vit", numbers(swapped(1, 2, axis=1), "position_embeddings"), "position|task"),
    Kind("class token scaled", "vit", numbers(scaled(1.01), "cls_token"), "cls_token|task"),
    Kind("patch projection: one channel", "vit", numbers(zeroed(0, 1), "projection.weight"), "projection|task"),
    Kind("a tied head untied", "llama", _untied(113), "embed_tokens|embeddings", today="unnamed"),
    Kind("two words of the head swapped", "mistral", _head_row, "lm_head|logits"),
)  # fmt: skip
