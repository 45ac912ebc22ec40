# ruff: noqa: E501 (a table: one kind in a line)
"""The adapter in the graph: factors, tables of tasks, routers, heads, and the operators' bodies."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tests.exporter.validation.wrong.edits import (
    Damage,
    after,
    constant,
    filled,
    graph,
    initializer,
    model,
    nodes,
    numbers,
    scaled,
    set_attribute,
    set_numbers,
    swapped,
    zeroed,
)
from tests.exporter.validation.wrong.kind import Kind

_VALUE = "bert.encoder.layer.1.attention.self.value"
_DOWN = "model.layers.1.mlp.down_proj"
_FORWARD = "bert.encoder.layer.1.intermediate.dense"
_ROUTER = "bert.encoder.layer.0.attention.self.query.tucka_ec"
_ALL = slice(None)


def _body(function: str, old: str, new: str, at: int = -1) -> Damage:
    """One node of an operator's body becomes another; kernels, where they are, do not notice."""

    def change(found: ir.Model) -> None:
        body = next(body for body in found.functions.values() if body.name == function)
        node = [node for node in body if node.op_type == old][at]
        node.op_type = new

    return model(change)


def _left_out(op_type: str, at: int = -1) -> Damage:
    """What one operator gives is what it was given."""

    def change(found: ir.Graph) -> None:
        node = [node for node in found if node.op_type == op_type][at]
        base, adapted = node.inputs[0], node.outputs[0]
        assert base is not None
        dtype = np.float16 if adapted.dtype == ir.DataType.FLOAT16 else np.float32
        kept = ir.node("Mul", [adapted, constant(found, "none", np.zeros((), dtype))])
        after(found, adapted, kept, ir.node("Add", [base, kept.outputs[0]]))

    return graph(change)


def _off_while_decoding(found: ir.Graph) -> None:
    """The last module's adapter is off where a call has one position."""
    node = nodes(found, "PyramidDelta")[-1]
    adapted, base = node.outputs[0], node.inputs[0]
    length = ir.node("Shape", [found.inputs[0]], attributes={"start": 1, "end": 2})
    single = ir.node("Equal", [length.outputs[0], constant(found, "one", np.array([1]))])
    after(found, adapted, length, single, ir.node("Where", [single.outputs[0], base, adapted]))


def _inside(value: ir.Value) -> ir.Value:
    """What a graph output is cast from, where the graph computes in another type."""
    node = value.producer()
    source = node.inputs[0] if node is not None and node.op_type == "Cast" else None
    return value if source is None else source


def _first_token(found: ir.Graph) -> None:
    """The heads read the first token's state, where they were trained on the pooler's."""
    pooled = _inside(next(value for value in found.outputs if value.name == "pooler_output"))
    hidden = _inside(next(value for value in found.outputs if value.name == "last_hidden_state"))
    first = ir.node("Gather", [hidden, constant(found, "first", np.array(0))], attributes={"axis": 1})
    first.outputs[0].name = "first_token"
    maker = pooled.producer()
    assert maker is not None
    found.insert_after(maker, first)
    read = [(user, index) for user, index in pooled.uses() if user.op_type != "Cast"]
    assert read
    for user, index in read:
        user.replace_input_with(index, first.outputs[0])


def _mean_of_padding(found: ir.Graph) -> None:
    """The heads read the mean of all positions, padding included."""
    counts = [node.outputs[0] for node in nodes(found, "Cast") if str(node.name).startswith("eptx_")]
    assert len(counts) == 1
    one = constant(found, "every", np.ones((), np.float32))
    after(found, counts[0], ir.node("Max", [counts[0], one]))


def _tasks_of(found: ir.Graph, parts: tuple[str, ...]) -> None:
    for name, value in found.initializers.items():
        if name.endswith(parts):
            set_numbers(value, swapped(0, 1))


def _infers_the_least(found: ir.Graph) -> None:
    """The task whose similarity is smallest."""
    node = nodes(found, "ArgMax")[-1]
    node.op_type = "ArgMin"


def _transposed(found: ir.Graph) -> None:
    """The square factor of two ranks and experts."""
    value = initializer(found, "layer.0.attention.self.key.tucka_g")
    set_numbers(value, lambda old: np.swapaxes(old, -1, -2))


def _frozen_group(found: ir.Graph) -> None:
    """The route of the tasks x and y exchanged."""
    groups = [value for name, value in found.initializers.items() if "group" in name]
    assert groups, list(found.initializers)
    for value in groups:
        set_numbers(value, swapped(0, 1))


KINDS = (
    Kind("one module's update doubled", "bert", numbers(scaled(2.0), f"{_VALUE}.lora_B"), _VALUE),
    Kind("one module's update off by a hundredth", "bert", numbers(scaled(1.01), f"{_VALUE}.lora_B"), _VALUE),
    Kind("every update doubled", "heads", graph(lambda g: [set_numbers(v, scaled(2.0)) for n, v in g.initializers.items() if n.endswith("lora_B")] and None), "layer.0"),
    Kind("ranks out of order", "bert", numbers(swapped(0, 1, axis=2), f"{_VALUE}.lora_A"), _VALUE),
    Kind("one task without update in a module", "bert", numbers(zeroed(1), f"{_VALUE}.lora_B"), "beta"),
    Kind("two tasks swapped in a module", "qwen2", numbers(swapped(0, 1), f"{_DOWN}.lora_B"), "task"),
    Kind("two tasks swapped everywhere", "vit", graph(lambda g: _tasks_of(g, ("lora_A", "lora_B"))), "task"),
    Kind("a module without its operator", "bert", _left_out("LowRankDelta"), "task alpha"),
    Kind("a decoder's module without its operator", "llama", _left_out("PyramidDelta"), "task task0"),
    Kind("another expert", "heads", numbers(lambda old: (old + np.array([[1, 0]] + [[0, 0]] * 3)) % 3, "layer.0.attention.output.dense.task_experts"), "layer.0.attention.output.dense"),
    Kind("experts' weights swapped", "llama", numbers(lambda old: old[:, ::-1], f"{_DOWN}.task_weights"), _DOWN),
    Kind("an expert's kernel", "heads", numbers(scaled(1.01), f"{_VALUE}.lora_expert_kernels"), _VALUE),
    Kind("the base not off", "llama", numbers(lambda old: np.concatenate([old[:3], old[:1]]), f"{_DOWN}.task_weights"), "task base"),
    Kind("a router's gate", "heads mean", numbers(lambda old: np.roll(old, 1, axis=0), f"{_VALUE}.lora_gate.weight"), _VALUE),
    Kind("two tasks of a router swapped", "heads mean", numbers(swapped(0, 2), f"{_VALUE}.lora_task_embedding"), _VALUE),
    Kind("one expert of two", "heads mean", graph(set_attribute("RoutedPyramidDelta", "top_k", 1)), "layer.0|layer.1"),
    Kind("the least similar task inferred", "heads mean", graph(_infers_the_least), "auto"),
    Kind("centroids out of order", "bert tucka", numbers(lambda old: np.roll(old, 1, axis=0), _ROUTER), "group|query"),
    Kind("alpha doubled", "bert tucka", numbers(scaled(2.0), f"{_VALUE}.tucka_p"), _VALUE),
    Kind("an expert's share", "bert tucka", numbers(scaled(1.01, 0), f"{_VALUE}.tucka_c"), _VALUE),
    Kind("a core transposed", "bert tucka", graph(_transposed), "layer.0.attention.self.key"),
    Kind("a token's gate", "bert hydra", numbers(lambda old: np.roll(old, 1, axis=0), f"{_VALUE}.lora_route"), _VALUE),
    Kind("two experts of tokens swapped", "bert hydra", numbers(swapped(0, 1), f"{_VALUE}.lora_B"), _VALUE),
    Kind("a row's gate", "bert lily", numbers(lambda old: np.roll(old, 1, axis=0), f"{_VALUE}.lily_router"), _VALUE),
    Kind("one expert of two of a token", "bert mixlora", graph(set_attribute("TopExperts", "top_k", 1)), "does not run|layer.0|slots"),
    Kind("a feed-forward's gate", "bert mixlora", numbers(lambda old: np.roll(old, 1, axis=0), "bert.encoder.layer.1.intermediate.dense.moe_gate"), "layer.1.intermediate"),
    Kind("an expert's last projection", "bert mixlora", numbers(swapped(0, 1), "bert.encoder.layer.1.output.dense.lora_B"), "layer.1.output.dense"),
    Kind("a frozen weight of a feed-forward", "bert mixlora frozen", numbers(lambda old: old + np.array([[0.0, 0.0], [0.01, -0.01], [0.0, 0.0]]), f"{_FORWARD}.task_weights"), "task y.*layer.1.output.dense"),
    Kind("frozen weights that sum to less", "bert mixlora frozen", numbers(scaled(0.99, 0), f"{_FORWARD}.task_weights"), "task x.*layer.1.output.dense"),
    Kind("a frozen expert of a feed-forward", "bert mixlora frozen", numbers(lambda old: np.array([[0, 1], [1, 3], [4, 4]]), f"{_FORWARD}.task_experts"), "task y.*layer.1.intermediate"),
    Kind("experts where the adapter is off", "bert mixlora frozen", numbers(lambda old: np.array([*old[:2], [0, 1]]), f"{_FORWARD}.task_experts"), "task base.*layer.1"),
    Kind("body of TokenMixtureDelta", "bert hydra", _body("TokenMixtureDelta", "Add", "Sub"), "TokenMixtureDelta|bod|layer"),
    Kind("body of PooledMixtureDelta", "bert lily", _body("PooledMixtureDelta", "Softmax", "LogSoftmax"), "PooledMixtureDelta|bod|layer"),
    Kind("body of TopExperts", "bert mixlora", _body("TopExperts", "Softmax", "LogSoftmax"), "TopExperts|bod|layer"),
    Kind("body of ChosenExpertsSum", "bert mixlora", _body("ChosenExpertsSum", "Add", "Sub"), "ChosenExpertsSum|bod|layer"),
    Kind("two groups swapped in a module", "bert tucka frozen", numbers(swapped(0, 2), f"{_VALUE}.tucka_g"), _VALUE),
    Kind("frozen routes swapped", "bert tucka frozen", graph(_frozen_group), "group|task"),
    Kind("adapter off while decoding", "llama", graph(_off_while_decoding), "task task0"),
    Kind("body of LowRankDelta", "bert", _body("LowRankDelta", "Add", "Sub"), "LowRankDelta|bod|layer"),
    Kind("body of PyramidDelta", "heads", _body("PyramidDelta", "Add", "Sub"), "PyramidDelta|bod|layer"),
    Kind("body of PyramidRouter", "heads mean", _body("PyramidRouter", "Softmax", "LogSoftmax"), "PyramidRouter|bod|layer"),
    Kind("body of TuckerRouter", "bert tucka", _body("TuckerRouter", "ArgMax", "ArgMin"), "TuckerRouter|bod|layer"),
    Kind("body of TuckerDelta", "bert tucka", _body("TuckerDelta", "Add", "Sub"), "TuckerDelta|bod|layer"),
    Kind("body of a decoder's operator", "llama", _body("PyramidDelta", "Add", "Sub"), "PyramidDelta|bod|layer"),
    Kind("body of an encoder-decoder's operator", "t5", _body("LowRankDelta", "Add", "Sub"), "LowRankDelta|bod|block"),
    Kind("a bias added twice in a body", "bert", _body("BiasedLowRankDelta3", "Add", "Sub", 0), "BiasedLowRankDelta3|bod|layer"),
    Kind("two labels of a head swapped", "heads", numbers(swapped(0, 1, axis=2), "task_head.weight.bank"), "cola|mnli"),
    Kind("two heads swapped", "heads", graph(lambda g: _tasks_of(g, ("task_head.weight.bank", "task_head.bias.bank"))), "cola|mnli"),
    Kind("a head without its bias", "heads", numbers(zeroed(1), "task_head.bias.bank"), "mnli"),
    Kind("padded labels not zero", "heads", numbers(filled(5.0, 0, 2), "task_head.bias.bank"), "cola"),
    Kind("heads on the first token", "heads", graph(_first_token), "task_heads|logits|cola"),
    Kind("heads on the mean of padding", "heads mean", graph(_mean_of_padding), "task_heads|logits|cola"),
    Kind("a static bundle without one update", "bert static", numbers(scaled(1.02, _ALL, 4), f"{_VALUE}.weight"), _VALUE),
)  # fmt: skip
