"""No node of an adapter is left to the CPU on CUDA, by ONNX Runtime's published table of kernels."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
import onnxruntime as ort
import pytest
import torch

from tests.cuda.placement import has_kernel, left_to_cpu, placed
from tests.exporter.validation.wrong.bases import BUNDLES, Bases

#: Weights stored as float16, or arithmetic in it: one graph of each, and int4 of a builder.
FIXED = {"bert fp16": "fp16", "llama int4": "int4"}
CASES = [
    (name, precision)
    for name in BUNDLES
    for precision in ("fp32", "fp16")
    if FIXED.get(name, precision) in (precision, "int4")
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    torch.set_num_threads(1)
    return Bases(tmp_path_factory.mktemp("made"), provider="cuda")


@pytest.mark.parametrize(("name", "precision"), CASES, ids=lambda value: value)
def test_exported_graphs(made: Bases, name: str, precision: str) -> None:
    bundle = made.export(name, precision=FIXED.get(name, precision))
    for file in sorted(bundle.path.glob("*.onnx")):
        model = onnx.load(file, load_external_data=False)
        nodes = placed(model)
        assert len(nodes) > len(model.graph.node) // 2
        untyped = [str(node) for node in nodes if None in node.inputs and len(node.inputs) == len(node.reads)]
        assert untyped == []
        assert [str(node) for node in left_to_cpu(model)] == []


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_route_of_the_whole_batch(made: Bases, precision: str) -> None:
    bundle = made.export("bert tucka", routing="batch", precision=precision)
    assert [str(node) for node in left_to_cpu(onnx.load(bundle.model, load_external_data=False))] == []


def _model(body: str, opset: int = 18) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n{body}')


@pytest.mark.parametrize(
    ("body", "opset", "left"),
    [
        ("g (float[n] x) => (float[n] y) { y = Cos (x) }", 18, []),
        # a kernel without an end is of its own version only
        ("g (float[n] x) => (float[n] y) { y = Cos (x) }", 22, ["Cos"]),
        ("g (int64[n] x) => (int64[1] y) { y = ArgMax (x) }", 18, ["ArgMax"]),
        ("g (float16[n] x) => (int64[1] y) { y = ArgMax (x) }", 18, []),
        ("g (float[n,m] x) => (uint8[n,m] y, float s, uint8 z) { y, s, z = DynamicQuantizeLinear (x) }", 18,
         ["DynamicQuantizeLinear"]),
        # what only shapes decide may stay on the CPU
        ("g (float[n,m] x) => (int64[1] y) { s = Shape (x)\n y = ArgMax (s) }", 18, []),
        ("g (bool[n] x) => (bool[n] y) { y = Where (x, x, x) }", 18, ["Where"]),
    ],
)  # fmt: skip
def test_facts_of_the_table(body: str, opset: int, left: list[str]) -> None:
    assert [node.op_type for node in left_to_cpu(_model(body, opset))] == left


def test_types_are_those_of_onnx_runtime(made: Bases, tmp_path: Path) -> None:
    """What is inferred here is what ONNX Runtime infers, where it gives a value the same name."""
    bundle = made.bundle("bert")
    whole = onnx.load(bundle.model, load_external_data=False)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "seen.onnx")
    ort.InferenceSession(str(bundle.model), options)
    seen = onnx.load(str(tmp_path / "seen.onnx"), load_external_data=False)
    types = {value.name: value.type.tensor_type.elem_type for value in seen.graph.value_info}
    names = onnx.TensorProto.DataType.items()
    found = {name: dtype for node in placed(whole) for name, dtype in zip(node.gives, node.outputs, strict=True)}
    both = {name for name in types if found.get(name) is not None}
    assert len(both) > 50
    assert {n: found[n] for n in both} == {n: next(k.lower() for k, v in names if v == types[n]) for n in both}


def test_a_kernel_needs_all_of_its_types() -> None:
    assert has_kernel("", "Gather", 13, ("float16", "int64"), ("float16",))
    assert not has_kernel("", "Gather", 13, ("float16", "float"), ("float16",))
    assert not has_kernel("com.microsoft", "NoSuchOperator", 1, (), ())
