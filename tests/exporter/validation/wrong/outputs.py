# ruff: noqa: E501 (a table: one kind in a line)
"""What the bundle returns, and what it does only for some inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from eptx.errors import BundleError
from eptx.files.strict_json import dump_json, read_json_object
from tests.exporter.validation.workshop import swap_layers_of_the_cache
from tests.exporter.validation.wrong.edits import (
    MANIFEST,
    Damage,
    after,
    both,
    constant,
    filled,
    graph,
    manifest,
    numbers,
)
from tests.exporter.validation.wrong.kind import Kind


def _output(found: ir.Graph, name: str) -> ir.Value:
    return next(value for value in found.outputs if value.name == name)


def _spec(output: str, **new: Any) -> Damage:
    """What the manifest says of an output."""

    def change(value: dict[str, Any]) -> None:
        for spec in value["outputs"]:
            if spec["name"] == output:
                spec.update(new)

    return manifest(change)


def _renamed(old: str, new: str) -> Damage:
    """An output by another name, in the graph and in the manifest."""

    def change(found: ir.Graph) -> None:
        _output(found, old).name = new

    return both(graph(change), _spec(old, name=new))


def _missing(name: str) -> Damage:
    """An output less."""

    def change(found: ir.Graph) -> None:
        found.outputs.remove(_output(found, name))

    def told(value: dict[str, Any]) -> None:
        value["outputs"] = [spec for spec in value["outputs"] if spec["name"] != name]

    return both(graph(change), manifest(told))


def _unlabelled(value: dict[str, Any]) -> None:
    value["tasks"] = [task | {"labels": None, "label_names": None, "problem_type": None} for task in value["tasks"]]


def _through(
    make: Callable[[ir.Graph, ir.Value], Sequence[ir.Node]], *, width: int | None = None, **new: Any
) -> Damage:
    """Nodes between the logits and who reads them; the manifest has the type and width that they give."""

    def change(found: ir.Graph) -> None:
        logits = _output(found, "logits")
        after(found, logits, *make(found, logits))
        last = _output(found, "logits")
        if "dtype" in new:
            last.type = ir.TensorType(ir.DataType[{"float16": "FLOAT16", "float64": "DOUBLE"}[new["dtype"]]])
        if width is not None:
            assert last.shape is not None
            last.shape = ir.Shape([*last.shape[:-1], width])

    def told(folder: Path) -> None:
        value = read_json_object(folder / MANIFEST, error=BundleError)
        for spec in value["outputs"]:
            if spec["name"] == "logits":
                spec.update(new)
                spec["shape"][-1] = width or spec["shape"][-1]
        (folder / MANIFEST).write_bytes(dump_json(value))

    return both(graph(change), told)


def _one(op_type: str, **attributes: Any) -> Callable[[ir.Graph, ir.Value], Sequence[ir.Node]]:
    return lambda found, value: [ir.node(op_type, [value], attributes=attributes)]


def _columns(*columns: int) -> Callable[[ir.Graph, ir.Value], Sequence[ir.Node]]:
    """The labels in another order, or fewer of them."""

    def make(found: ir.Graph, value: ir.Value) -> Sequence[ir.Node]:
        return [ir.node("Gather", [value, constant(found, "columns", np.array(columns))], attributes={"axis": -1})]

    return make


Condition = Callable[[ir.Graph], list[ir.Node]]


def _when(condition: Condition) -> Damage:
    """Logits that are 0.05 larger where something holds, as an If or a shape that was traced would have it."""

    def make(found: ir.Graph, value: ir.Value) -> Sequence[ir.Node]:
        found_nodes = condition(found)
        as_number = ir.node("Cast", [found_nodes[-1].outputs[0]], attributes={"to": int(ir.DataType.FLOAT)})
        part = ir.node("Mul", [as_number.outputs[0], constant(found, "more", np.array(0.05, np.float32))])
        return [*found_nodes, as_number, part, ir.node("Add", [value, part.outputs[0]])]

    return _through(make)


def _input(found: ir.Graph, name: str) -> ir.Value:
    return next(value for value in found.inputs if value.name == name)


def _size(name: str, axis: int, compare: str, number: int) -> Condition:
    """A size of an input, compared with a number."""

    def make(found: ir.Graph) -> list[ir.Node]:
        shape = ir.node("Shape", [_input(found, name)], attributes={"start": axis, "end": axis + 1})
        return [shape, ir.node(compare, [shape.outputs[0], constant(found, "bound", np.array([number]))])]

    return make


def _holds(name: str, number: int) -> Condition:
    """Whether an input holds a number anywhere."""

    def make(found: ir.Graph) -> list[ir.Node]:
        equal = ir.node("Equal", [_input(found, name), constant(found, "bound", np.array(number))])
        as_int = ir.node("Cast", [equal.outputs[0]], attributes={"to": int(ir.DataType.INT32)})
        most = ir.node("ReduceMax", [as_int.outputs[0]], attributes={"keepdims": 0})
        return [equal, as_int, most, ir.node("Cast", [most.outputs[0]], attributes={"to": int(ir.DataType.BOOL)})]

    return make


def _second_step(found: ir.Graph) -> list[ir.Node]:
    """A call of one token whose past is odd."""
    past = ir.node("Shape", [_input(found, "past_key_values.0.key")], attributes={"start": 2, "end": 3})
    odd = ir.node("Mod", [past.outputs[0], constant(found, "two", np.array([2]))])
    return [past, odd, ir.node("Cast", [odd.outputs[0]], attributes={"to": int(ir.DataType.BOOL)})]


def _fixed(axis: int, size: int) -> Damage:
    """The graph takes one size only of what ought to vary."""

    def change(found: ir.Graph) -> None:
        for value in found.inputs:
            if value.shape is not None and len(value.shape) > axis:
                value.shape = ir.Shape([size if i == axis else dim for i, dim in enumerate(value.shape)])

    def told(value: dict[str, Any]) -> None:
        for spec in value["inputs"]:
            if len(spec["shape"]) > axis:
                spec["shape"][axis] = size

    return both(graph(change), manifest(told))


_REVERSED = _columns(2, 1, 0)

KINDS = (
    Kind("logits renamed to scores", "bert", both(_renamed("logits", "scores"), manifest(_unlabelled)), "logits|scores"),
    Kind("pooler output missing", "heads", _missing("pooler_output"), "pooler_output"),
    Kind("hidden states missing", "heads", _missing("last_hidden_state"), "last_hidden_state"),
    Kind("logits missing", "heads", both(_missing("logits"), manifest(_unlabelled)), "logits|label"),
    Kind("hidden states renamed", "heads", _renamed("last_hidden_state", "hidden"), "last_hidden_state|hidden"),
    Kind("labels in the other order", "bert", _through(_REVERSED), "logits"),
    Kind("a softmax too many", "bert", _through(_one("Softmax", axis=-1)), "logits"),
    Kind("a log softmax too many", "roberta", _through(_one("LogSoftmax", axis=-1)), "logits"),
    Kind("logits in float16", "bert", _through(_one("Cast", to=10), dtype="float16"), "logits"),
    Kind("logits in float64", "bert", _through(_one("Cast", to=11), dtype="float64"), "logits"),
    Kind("a label less", "bert", both(_through(_columns(0, 1), width=2), manifest(_unlabelled)), "task alpha: labels"),
    Kind("a label more", "bert", _through(_columns(0, 1, 2, 2), width=4), "logits"),
    Kind("caches of two layers swapped", "qwen2", graph(swap_layers_of_the_cache), "present|task"),
    Kind("caches of two layers swapped", "t5", graph(swap_layers_of_the_cache), "present|task"),
    Kind("wrong past 64 tokens", "bert", _when(_size("input_ids", 1, "Greater", 64)), "logits|length"),
    Kind("wrong at the full length", "bert", _when(_size("input_ids", 1, "Equal", 96)), "logits|length"),
    Kind("wrong for one word", "bert", _when(_holds("input_ids", 77)), "logits|task"),
    Kind("wrong for one word of a decoder", "qwen2", _when(_holds("input_ids", 101)), "logits|task"),
    Kind("wrong for one row", "bert", _when(_size("input_ids", 0, "Equal", 1)), "logits|task"),
    Kind("wrong for the second step", "qwen2", _when(_second_step), "logits|task"),
    Kind("wrong past 220 tokens", "qwen2", _when(_size("attention_mask", 1, "Greater", 220)), "logits|length"),
    Kind("wrong for many rows", "bert", _when(_size("input_ids", 0, "Greater", 16)), "logits|rows"),
    Kind("a batch of one", "bert", _fixed(0, 1), "batch|input_ids"),
    Kind("a length of 32", "bert", _fixed(1, 32), "dimensions for input"),
    Kind("not a number in a weight", "bert", numbers(filled(np.nan, 3, 3), "layer.0.intermediate.dense.weight"), "intermediate|output.dense"),
    Kind("infinity in a bias", "bert", numbers(filled(np.inf, 3), "layer.0.intermediate.dense.bias"), "intermediate|output.dense"),
    Kind("1e38 in a weight", "qwen2", numbers(filled(1e38, 3, 3), "layers.0.mlp.up_proj"), "layers.0.mlp"),
    Kind("not a number in a row that is rare", "bert", numbers(filled(np.nan, 95), "position_embeddings"), "position_embeddings"),
    Kind("float16 overflown", "bert fp16", numbers(filled(np.inf, 3, 3), "layer.0.intermediate.dense.weight"), "intermediate|output.dense"),
    Kind("not a number in a tuck", "bert tucka", numbers(filled(np.nan, 0, 0), "layer.1.attention.self.value.tucka_u"), "layer.1"),
    Kind("not a number in a head", "heads", numbers(filled(np.nan, 1), "task_head.bias.bank"), "mnli"),
)  # fmt: skip
