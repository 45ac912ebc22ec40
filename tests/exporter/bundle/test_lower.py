"""Graphs are written in the lowest IR version and opset in which they mean the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import defs

from eptx.exporter.bundle import lower as lists
from eptx.exporter.bundle.lower import NEWEST_OPSET, Lowest, lower
from eptx.exporter.bundle.older_nodes import use_older_nodes
from eptx.exporter.ops.domain import MIN_OPSET

#: Types that every opset here has had for long; what an operator gets besides them is in a list of its own.
_PLAIN = {"bool", "double", "float", "float16", "string", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64))}
_NAMES = {"FLOAT16": "float16", "STRING": "string", "INT32": "int32", "BOOL": "bool", "INT16": "int16"}
_NAMES |= {"UINT16": "uint16"}


def text(body: str, opset: int = 20, ir_version: int = 10, header: str = "float[2, 4] x") -> ir.Model:
    """A model from ONNX's own text format."""
    versions = f'ir_version: {ir_version}, opset_import: ["" : {opset}, "com.microsoft" : 1]'
    return ir.from_proto(onnx.parser.parse_model(f"<{versions}> g ({header}) => (y) {{ {body} }}"))


def answer(model: ir.Model, **feeds: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model).SerializeToString()
    return np.asarray(onnxruntime.InferenceSession(proto).run(None, feeds)[0])


def test_what_changed_its_types_alone_is_lowered() -> None:
    model = text("t = Transpose (x) s = Shape (t) z = Cast <to = 1> (s) r = Reshape (t, s) y = Add (r, r)", opset=24)
    assert lower(model) == Lowest(9, 18, None)
    assert (model.ir_version, model.opset_imports[""]) == (9, 18)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(answer(model, x=x), 2 * x.T)


@pytest.mark.parametrize(
    ("body", "opset", "wanted"),
    [
        ("y = Gelu (x)", 22, (20, "Gelu")),
        ("y = Cast <to = 10, saturate = 1> (x)", 21, (19, "Cast")),
        ("y = Swish (x)", 24, (24, "Swish")),
        ("b = Cast <to = 9> (x) y = ReduceMax (b)", 20, (20, "ReduceMax")),
        ("y = ReduceMax (x)", 20, (18, None)),
        ("h = Cast <to = 10> (x) y = IsInf (h)", 22, (20, "IsInf")),
        ("y = Round (x)", 22, (18, None)),
        ("z = Identity (x) y = Abs (z)", 17, (17, None)),
    ],
)
def test_what_an_opset_brought_keeps_it(body: str, opset: int, wanted: tuple[int, str | None]) -> None:
    model = ir.passes.common.ShapeInferencePass()(text(body, opset)).model
    assert lower(model) == Lowest(9, *wanted)


def test_a_type_that_the_graph_does_not_say_keeps_the_opset() -> None:
    model = text("b = Cast <to = 9> (x) y = ReduceMax (b)")
    assert all(value.dtype is None for node in model.graph for value in node.outputs if value.name == "b")
    assert lower(model) == Lowest(9, 20, "ReduceMax")


def test_a_nested_graph_counts() -> None:
    one, other = "t () => (float[2, 4] a) { a = Gelu (x) }", "e () => (float[2, 4] b) { b = Abs (x) }"
    body = f"y = If (c) <then_branch = {one}, else_branch = {other}>"
    model = text(body, header="float[2, 4] x, bool c")
    assert lower(model) == Lowest(9, 20, "Gelu")
    assert {graph.opset_imports[""] for graph in model.graphs()} == {20}


@pytest.mark.parametrize(("code", "version"), [(17, 9), (20, 9), (22, 10), (21, 10), (23, 11), (24, 12)])
def test_newer_types_keep_ir_and_opset(code: int, version: int) -> None:
    """float8, int4, uint4, float4, float8e8m0: named by a node alone."""
    assert lower(text(f"q = Cast <to = {code}> (x) y = Cast <to = 1> (q)", 24, 13)) == Lowest(version, 24, None)


def test_newer_types_of_weights() -> None:
    model = text("w = Constant <value = float[1] {1}> () y = Mul (x, w)", 21)
    values = ir.Tensor(np.ones((2,), ir.DataType.UINT4.numpy()), dtype=ir.DataType.UINT4, name="q")
    weight = ir.Value(name="q", type=ir.TensorType(ir.DataType.UINT4), shape=ir.Shape([2]), const_value=values)
    model.graph.register_initializer(weight)
    assert lower(model) == Lowest(10, 21, None)


def test_opsets_that_are_not_known_stay() -> None:
    model = text("y = Abs (x)", NEWEST_OPSET + 1)
    assert lower(model) == Lowest(9, NEWEST_OPSET + 1, None)


@pytest.mark.parametrize(("overload", "wanted"), [("", 9), ("of_floats", 10)])
def test_functions(overload: str, wanted: int) -> None:
    value = ir.Value(name="a")
    node = ir.node("Abs", [value])
    graph = ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 20}, name="F")
    model = text("y = Abs (x)")
    function = ir.Function("ai.eptx", "F", overload, graph=graph, attributes=[])
    model.functions[function.identifier()] = function
    assert lower(model) == Lowest(wanted, 18, None)
    assert function.opset_imports[""] == 18


def test_functions_of_others_keep_the_opset() -> None:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="F")
    model = text("y = Abs (x)")
    function = ir.Function("mine", "F", "", graph=graph, attributes=[])
    model.functions[function.identifier()] = function
    assert lower(model) == Lowest(9, 20, None)


def _listed(opset: int, name: str, before: Any, schema: Any) -> Iterator[str]:
    """What a schema allows that the one before did not, and no list says."""
    if name in lists._OTHER.get(opset, ()):
        return
    yield from schema.attributes.keys() - before.attributes.keys() - {*lists._ATTRIBUTES.get((opset, name), ())}
    known = {_NAMES[dtype.name] for dtype in lists._TYPES.get((opset, name), ())}
    for mine, theirs in ((schema.inputs, before.inputs), (schema.outputs, before.outputs)):
        if len(mine) != len(theirs):
            yield "inputs or outputs"
        for new, old in zip(mine, theirs, strict=False):
            plain = {kind for kind in _PLAIN if any(f"({kind})" in each for each in {*new.types} - {*old.types})}
            yield from plain - known
    defaults: Mapping[str, Any] = {key: str(a.default_value) for key, a in before.attributes.items()}
    yield from (key for key, said in defaults.items() if str(schema.attributes[key].default_value) != said)


def test_the_lists_name_every_change_of_the_installed_onnx() -> None:
    schemas: dict[str, dict[int, Any]] = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "":
            schemas.setdefault(schema.name, {})[schema.since_version] = schema
    missed, changes = [], 0
    for name, history in schemas.items():
        for opset in (version for version in history if MIN_OPSET < version <= NEWEST_OPSET):
            before = max((version for version in history if version < opset), default=None)
            changes += 1
            if before is None:
                missed += [] if name in lists._OTHER.get(opset, ()) else [f"{name} {opset} is new"]
            else:
                missed += [f"{name} {opset}: {what}" for what in _listed(opset, name, history[before], history[opset])]
    assert missed == []
    assert changes > 100


@pytest.mark.parametrize(
    ("attribute", "wanted"), [("", "Gelu"), ('<approximate = "none">', "Gelu"), ('<approximate = "tanh">', "FastGelu")]
)
def test_gelu_becomes_what_older_releases_have(attribute: str, wanted: str) -> None:
    model = text(f"y = Gelu {attribute} (x)")
    x = np.linspace(-4, 4, 8, dtype=np.float32).reshape(2, 4)
    before = answer(model, x=x)
    use_older_nodes(model, only_onnxruntime=False)
    assert model.graph[0].domain == "", "a graph that other runtimes read stays one"
    use_older_nodes(model, only_onnxruntime=True)
    (node,) = model.graph
    assert (node.domain, node.op_type, len(node.attributes)) == ("com.microsoft", wanted, 0)
    assert lower(model) == Lowest(9, 18, None)
    np.testing.assert_allclose(answer(model, x=x), before, atol=1e-6)


def test_gelu_of_a_graph_for_onnx_runtime_alone() -> None:
    model = text("a = Gelu (x) y = com.microsoft.QuickGelu (a)")
    use_older_nodes(model, only_onnxruntime=False)
    assert [node.domain for node in model.graph] == ["com.microsoft"] * 2


def test_inputs_left_out_at_the_end() -> None:
    body = "y = com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, , , , , )"
    model = text(body, header="float[1, 2, 4] q, float[1, 2, 4] k")
    assert len(model.graph[0].inputs) == 6
    use_older_nodes(model, only_onnxruntime=False)
    assert len(model.graph[0].inputs) == 2
