"""A constant bias that is all that is done with a product is added by the operator; every other use of it stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eptx.exporter import ops
from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.graph.settings import GraphSettings
from eptx.manifest.names import OPERATOR_DOMAIN
from tests.support.linear_graph import DOUBLE, run_all
from tests.support.several_linears import Several, attach, constant

ROUTES = [(Route(1, (0.3, 0.6)),), (Route(0, (0.9, 0.2)),), (Route(1, (0.5, 0.1)),)]
#: method and mode -> operator, how to attach, tasks
CASES: dict[str, tuple[str, str, GraphSettings, int]] = {
    "ept conditioned": ("ept", "PyramidDelta", GraphSettings("conditioned"), 3),
    "ept dynamic": ("ept", "RoutedPyramidDelta", GraphSettings("dynamic"), 3),
    "lora": ("lora", "LowRankDelta", GraphSettings("conditioned"), 2),
    "tucka": ("tucka", "TuckerDelta", GraphSettings("conditioned", routes=ROUTES), 3),
}
Made = Sequence[np.ndarray]


def _operators(model: ir.Model) -> list[str]:
    return sorted(node.op_type for node in model.graph if node.domain == OPERATOR_DOMAIN)


def _adds(model: ir.Model) -> int:
    return len([node for node in model.graph if node.op_type == "Add"])


def _choices(case: str, ids: np.ndarray) -> list[Any]:
    tasks = CASES[case][3]
    return [None if task == tasks else ROUTES[task][0] if case == "tucka" else task for task in ids]


def _close(got: Made, want: Made) -> None:
    assert [a.shape for a in got] == [a.shape for a in want]
    for a, b in zip(got, want, strict=True):
        assert np.abs(a - b).max() <= 1e-10 * max(1.0, np.abs(b).max())


def _in_fours(counts: Counter[str]) -> list[str]:
    names = [(name, min(4, count - start)) for name, count in counts.items() for start in range(0, count, 4)]
    return sorted(f"{name}{n if n > 1 or 'Packed' in name else ''}" for name, n in names)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from(list(CASES)), st.booleans(), st.booleans(), st.booleans())
def test_modules_with_and_without(data: st.DataObject, case: str, packed: bool, half: bool, optimize: bool) -> None:
    """Two nodes: of those whose product has a bias, and of those without; the same as the folded weights and biases."""
    method, operator, plan, tasks = CASES[case]
    widths = data.draw(st.lists(st.integers(4, 8), min_size=2, max_size=6))  # no wider than x: all are updated on y
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    several = Several.of(widths, [1] * (len(widths) + 1) if packed else None, rng)
    names = ["packed"] if packed else list(several.weights)
    several = several.biased(data.draw(st.lists(st.sampled_from(names), unique=True)))
    model = several.attached(adapter := several.adapter(method), plan)
    ids = rng.integers(0, tasks + 1, size=len(several.x))
    if half:  # the bias as fp16 storage hands it over, beside activations of another type
        several = replace(several, biases=_halve(model, several))
    if packed:  # what is past four modules is a node on the product itself, before the bias
        first = f"{'Biased' if several.biases else ''}Packed{operator}{min(4, len(widths))}"
        rest = [f"Packed{operator}{len(widths) - 4}"] if len(widths) > 4 else []
        assert _operators(model) == sorted([first, *rest])
    else:
        kinds = Counter(f"{'Biased' if name in several.biases else ''}{operator}" for name in names)
        assert _operators(model) == _in_fours(kinds)
    assert _adds(model) == 0
    feeds = {"x": several.x, "task_id": ids}
    _close(run_all(model, feeds, optimize=optimize), several.folded(adapter, _choices(case, ids)))


def _halve(model: ir.Model, several: Several) -> dict[str, np.ndarray]:
    """Stores the biases as float16; what they are then."""
    halves = {name: bias.astype(np.float16) for name, bias in several.biases.items()}
    for name, half in halves.items():
        value = model.graph.initializers[f"{name}.bias"]
        value.const_value, value.type = ir.Tensor(half, name=value.name), ir.TensorType(ir.DataType.FLOAT16)
    return {name: half.astype(np.float64) for name, half in halves.items()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("gaps", [None, (0, 2, 0, 1)])
def test_reference_evaluator(case: str, gaps: tuple[int, ...] | None) -> None:
    several = Several.of((7, 4, 6), gaps, np.random.default_rng(8))
    several = several.biased(["packed"] if gaps else ["m0", "m2"])
    method, _, plan, tasks = CASES[case]
    model = several.attached(adapter := several.adapter(method), plan)
    assert any(name.startswith("Biased") for name in _operators(model))
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    ids = np.array([1, tasks, 0, 1])
    with np.errstate(all="ignore"):
        got = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": several.x, "task_id": ids})
    _close(got, several.folded(adapter, _choices(case, ids)))


@pytest.mark.parametrize("gaps", [None, (1, 0, 2)])
@pytest.mark.parametrize("case", CASES)
def test_the_inputs_of_each_module_are_found(case: str, gaps: tuple[int, ...] | None) -> None:
    several = Several.of((7, 4), gaps, np.random.default_rng(9))
    several = several.biased(["packed"] if gaps else ["m0", "m1"])
    method, operator, plan, _ = CASES[case]
    model = several.attached(several.adapter(method), plan)
    node = next(node for node in model.graph if node.domain == OPERATOR_DOMAIN)
    columns = ops.packed_columns(node)
    assert (columns is not None) == (gaps is not None)
    if columns is not None and columns.const_value is not None:
        assert columns.const_value.numpy().tolist() == [1, 8, 8, 12]
    for index in range(2):
        name, inputs = ops.module_inputs(node, index)
        assert name == operator
        assert inputs["x"] is model.graph.inputs[0]
        own = [str(value.name) for value in list(inputs.values())[1:] if value is not None and value.is_initializer()]
        assert own
        shared = "m0.kernel_sizes"  # equal ones are there once
        assert all(value.startswith(f"m{index}.") or value == shared for value in own)


IDS = np.array([1, 2, 0, 1])
Edited = tuple[ir.Model, set[str], list[np.ndarray]]


def _edited(edit: Callable[[ir.Graph], None], *, biased: Sequence[str] = ("m0", "m1")) -> Edited:
    """Two linears whose graph is edited before LoRA is attached: the model, who has its bias, m0 and m1 with biases."""
    several = Several.of((7, 5), None, np.random.default_rng(10)).biased(biased)
    adapter = several.adapter("lora")
    model, sites = several.graph()
    edit(model.graph)
    editor = attach(model, sites, adapter, CASES["lora"][2])
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    got = run_all(model, {"x": several.x, "task_id": IDS})
    _close(got[:2], want := several.folded(adapter, _choices("lora", IDS)))
    return model, editor.biased, [*got, *want]


def _value(graph: ir.Graph, name: str) -> ir.Value:
    return next(value for node in graph for value in node.outputs if value.name == name)


def _add_output(graph: ir.Graph, op_type: str, inputs: Sequence[ir.Value], shape: Sequence[int | str]) -> None:
    node = ir.node(op_type, inputs)
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "more", ir.TensorType(DOUBLE), ir.Shape(shape)
    graph.append(node)
    graph.outputs.append(node.outputs[0])


def test_a_bias_that_others_read_too() -> None:
    model, biased, (_, _, more, *_) = _edited(
        lambda graph: _add_output(graph, "Neg", [graph.initializers["m0.bias"]], [7])
    )
    assert biased == {"m0", "m1"}
    assert _operators(model) == ["BiasedLowRankDelta2"]
    bias = model.graph.initializers["m0.bias"].const_value
    assert bias is not None
    np.testing.assert_array_equal(more, -bias.numpy())


def test_one_bias_of_two_products() -> None:
    several = Several.of((6, 6), None, np.random.default_rng(12)).biased(["m0", "m1"])
    several = replace(several, biases=dict.fromkeys(several.biases, several.biases["m0"]))
    adapter = several.adapter("lora")
    model, sites = several.graph()
    _value(model.graph, "m1.sum").producer().replace_input_with(1, model.graph.initializers["m0.bias"])  # type: ignore[union-attr]
    attach(model, sites, adapter, CASES["lora"][2])
    assert _operators(model) == ["BiasedLowRankDelta2"]
    _close(run_all(model, {"x": several.x, "task_id": IDS}), several.folded(adapter, _choices("lora", IDS)))


def test_a_product_with_two_users() -> None:
    """Both read the adapted product, the one without the bias."""
    bias = np.zeros(0)

    def edit(graph: ir.Graph) -> None:
        nonlocal bias
        bias = graph.initializers["m0.bias"].const_value.numpy()  # type: ignore[union-attr]
        _add_output(graph, "Neg", [_value(graph, "m0.y")], ["batch", 3, 7])

    model, biased, (_, _, more, want, _) = _edited(edit)
    assert biased == {"m1"}
    assert _operators(model) == ["BiasedLowRankDelta", "LowRankDelta"]
    assert _adds(model) == 1
    _close([more], [bias - want])


def test_a_product_that_is_an_output_too() -> None:
    model, biased, (_, _, more, want, _) = _edited(lambda graph: graph.outputs.append(_value(graph, "m0.y")))
    assert biased == {"m1"}
    assert _adds(model) == 1
    assert model.graph.outputs[2].name == "m0.y"
    bias = model.graph.initializers["m0.bias"].const_value
    assert bias is not None
    _close([more], [want - bias.numpy()])


def _computed(graph: ir.Graph) -> ir.Value:
    """A bias that a node computes."""
    node = ir.node("Neg", [graph.initializers["m0.bias"]])
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "b", ir.TensorType(DOUBLE), ir.Shape([7])
    graph.insert_before(graph[0], node)
    again = ir.node("Neg", node.outputs)
    again.outputs[0].name, again.outputs[0].type, again.outputs[0].shape = "c", ir.TensorType(DOUBLE), ir.Shape([7])
    graph.insert_after(node, again)
    return again.outputs[0]


def _of_a_batch(graph: ir.Graph) -> ir.Value:
    """[1, 7] instead of [7]."""
    bias = graph.initializers["m0.bias"].const_value
    assert bias is not None
    value = constant("wide", bias.numpy()[None])
    graph.register_initializer(value)
    return value


@pytest.mark.parametrize("other", [_computed, _of_a_batch])
@pytest.mark.parametrize("first", [0, 1])
def test_what_is_no_constant_of_the_width(other: Callable[[ir.Graph], ir.Value], first: int) -> None:
    def edit(graph: ir.Graph) -> None:
        add = _value(graph, "m0.sum").producer()
        assert add is not None
        add.replace_input_with(first, other(graph))
        add.replace_input_with(1 - first, _value(graph, "m0.y"))

    model, biased, _ = _edited(edit)
    assert biased == {"m1"}
    assert _operators(model) == ["BiasedLowRankDelta", "LowRankDelta"]
    assert _adds(model) == 1


def test_the_bias_on_the_left() -> None:
    def edit(graph: ir.Graph) -> None:
        add = _value(graph, "m0.sum").producer()
        assert add is not None
        add.replace_input_with(0, graph.initializers["m0.bias"])
        add.replace_input_with(1, _value(graph, "m0.y"))

    model, biased, _ = _edited(edit)
    assert biased == {"m0", "m1"}
    assert _operators(model) == ["BiasedLowRankDelta2"]
