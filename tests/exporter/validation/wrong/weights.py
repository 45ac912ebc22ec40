# ruff: noqa: E501 (a table: one kind in a line)
"""The base's own weights and what its layers do: norms, biases, products, activations, attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from tests.exporter.validation.wrong.edits import (
    Damage,
    GraphChange,
    after,
    constant,
    filled,
    graph,
    initializer,
    mask_of,
    nodes,
    numbers,
    scaled,
    set_attribute,
    set_numbers,
    swapped,
    zeroed,
)
from tests.exporter.validation.wrong.kind import Kind

_FEED = "bert.encoder.layer.0.intermediate.dense"


def _swap(first: str, second: str) -> Damage:
    """Exchanges the numbers of two initializers."""

    def change(found: ir.Graph) -> None:
        a, b = initializer(found, first), initializer(found, second)
        a.const_value, b.const_value = b.const_value, a.const_value

    return graph(change)


def _blocks(array: np.ndarray) -> np.ndarray:
    """Keys and values of a packed projection exchanged: columns 64 to 96 and 96 to 128."""
    array[..., 64:128] = np.roll(array[..., 64:128], 32, axis=-1)
    return array


def _query_heads(array: np.ndarray) -> np.ndarray:
    """Two query heads of 16 exchanged."""
    array[..., :32] = np.roll(array[..., :32], 16, axis=-1)
    return array


def _relu(found: ir.Graph) -> None:
    """The last feed-forward cuts off what is below zero, and does not bend it."""
    node = nodes(found, "BiasGelu")[-1]
    node.op_type, node.domain = "Add", ""
    after(found, node.outputs[0], ir.node("Relu", [node.outputs[0]]))


def _renamed(op_type: str, new: str, domain: str | None = None, **attributes: Any) -> GraphChange:
    """Every node of a type becomes one of another type that takes the same inputs."""

    def change(found: ir.Graph) -> None:
        chosen = nodes(found, op_type)
        assert chosen, f"no {op_type}"
        for node in chosen:
            node.op_type, node.domain = new, node.domain if domain is None else domain
            node.attributes.clear()
            for name, value in attributes.items():
                node.attributes[name] = ir.Attr(name, ir.AttributeType.STRING, value)

    return change


def _without_skip(found: ir.Graph) -> None:
    """The second layer forgets what it was given."""
    node = nodes(found, "SkipLayerNormalization")[-1]
    skip = node.inputs[1]
    assert skip is not None
    nothing = ir.node("Mul", [skip, constant(found, "nothing", np.zeros((), np.float32))])
    nothing.outputs[0].name = "forgotten"
    found.insert_before(node, nothing)
    node.replace_input_with(1, nothing.outputs[0])


def _all_seen(found: ir.Graph) -> None:
    """A decoder that sees what comes after: no position is masked."""
    node = next(node for node in nodes(found, "LessOrEqual") if "length" not in (node.name or ""))
    after(found, node.outputs[0], ir.node("Or", [node.outputs[0], ir_true(found)]))


def ir_true(found: ir.Graph) -> ir.Value:
    """The constant true."""
    return constant(found, "always", np.array(True))


def _second_token(found: ir.Graph) -> None:
    """The classifier reads the second token in place of the first."""
    chosen = [node for node in nodes(found, "Gather") if node.name == "node_select"]
    chosen[0].replace_input_with(1, constant(found, "second", np.array(1)))


def _no_tanh(found: ir.Graph) -> None:
    node = nodes(found, "Tanh")[-1]
    node.op_type = "Identity"


KINDS = (
    Kind("a norm's weight", "bert", numbers(scaled(1.01), "embeddings.LayerNorm.weight"), "LayerNorm|query"),
    Kind("one number of the last norm", "llama", numbers(scaled(1.05, 7), "model.norm"), "norm|logits"),
    Kind("a norm's bias", "vit", numbers(filled(0.0), "vit.layernorm.bias"), "layernorm|logits"),
    Kind("two norms of a layer swapped", "roberta", _swap("layer.0.output.LayerNorm.w", "layer.1.output.LayerNorm.w"), "Norm|query"),
    Kind("one number of a bias", "bert", numbers(scaled(2.0, 5), _FEED + ".bias"), "intermediate|output.dense"),
    Kind("a packed projection's bias", "qwen2", numbers(scaled(1.1, 70), "layers.1.attn.qkv_proj.Add.bias"), "layers.1"),
    Kind("the pooler's bias", "bert", numbers(zeroed(), "pooler.dense.bias"), "pooler|logits"),
    Kind("two labels of the classifier swapped", "bert", numbers(swapped(0, 2), "classifier.weight"), "classifier|logits"),
    Kind("the classifier's bias", "deberta", numbers(zeroed(1), "classifier.bias"), "classifier|logits"),
    Kind("one column of a product", "bert", numbers(scaled(1.01, slice(None), 9), _FEED + ".weight"), "intermediate|output.dense"),
    Kind("one number of a product", "bert", numbers(scaled(1.1, 3, 9), _FEED + ".weight"), "intermediate|output.dense"),
    Kind("keys and values swapped", "qwen2", numbers(_blocks, "layers.0.attn.qkv_proj.MatMul"), "layers.0"),
    Kind("two query heads swapped", "mistral", numbers(_query_heads, "layers.1.attn.qkv_proj.MatMul"), "layers.1"),
    Kind("feed-forwards of two layers swapped", "bert", _swap(_FEED + ".weight", "layer.1.intermediate.dense.weight"), "intermediate|output.dense"),
    Kind("gate and up swapped", "llama", _swap("layers.0.mlp.gate_proj", "layers.0.mlp.up_proj"), "layers.0.mlp"),
    Kind("an unadapted weight of an encoder", "t5", numbers(scaled(1.01, slice(None), 1), "encoder.block.1.layer.1.DenseReluDense.wi.weight", file="encoder.onnx"), "encoder.block.1"),
    Kind("a norm's epsilon", "bert", graph(set_attribute("SkipLayerNormalization", "epsilon", 1e-5)), "eps|Norm|query|dense"),
    Kind("an RMS norm's epsilon", "llama", graph(set_attribute("SkipSimplified", "epsilon", 1e-4)), "eps|norm|task"),
    Kind("gelu of tanh", "bert", graph(_renamed("BiasGelu", "FastGelu")), "output.dense|gelu"),
    Kind("relu in place of gelu", "vit", graph(_relu), "output.dense|gelu|fc2|mlp"),
    Kind("gelu in place of relu", "t5", graph(_renamed("Relu", "Gelu", "com.microsoft"), "encoder.onnx"), "DenseReluDense|gelu"),
    Kind("attention's scale", "bert", numbers(scaled(1.02), "attention_0_scale"), "layer.0|attention"),
    Kind("attention's scale of a decoder", "qwen2", graph(set_attribute("GroupQueryAttention", "scale", 0.26, 1)), "layers.1|attention"),
    Kind("the mask dropped", "bert", graph(lambda found: set_numbers(mask_of(found), filled(0.0))), "mask|layer.0"),
    Kind("a mask that leaks", "bert", graph(lambda found: set_numbers(mask_of(found), filled(-8.0))), "mask|layer.0"),
    Kind("padding counted in an encoder", "t5", numbers(filled(0.0), "full_like", file="encoder.onnx"), "mask|encoder.block"),
    Kind("the causal mask off", "t5", graph(_all_seen), "mask|decoder.block"),
    Kind("no window", "mistral", graph(set_attribute("GroupQueryAttention", "local_window_size", -1)), "window|layers"),
    Kind("a window of one less", "mistral", graph(set_attribute("GroupQueryAttention", "local_window_size", 15)), "window|layers"),
    Kind("a wide window in one layer", "mistral", graph(set_attribute("GroupQueryAttention", "local_window_size", 250, 1)), "window|layers.1|logits"),
    Kind("a window where there is none", "llama", graph(set_attribute("GroupQueryAttention", "local_window_size", 230)), "window|attention"),
    Kind("a window in a full layer", "gemma2", graph(set_attribute("GroupQueryAttention", "local_window_size", 16, 1)), "window|layers.1|logits"),
    Kind("no soft cap", "gemma2", graph(set_attribute("GroupQueryAttention", "softcap", 0.0)), "softcap|layers"),
    Kind("rotary in the other order", "qwen2", graph(set_attribute("GroupQueryAttention", "rotary_interleaved", 1)), "rotary|layers"),
    Kind("a residual dropped", "bert", graph(_without_skip), "logits|Norm"),
    Kind("the second token classified", "bert", graph(_second_token), "logits|one token"),
    Kind("the pooler's tanh dropped", "bert", graph(_no_tanh), "logits|pooler"),
)  # fmt: skip
