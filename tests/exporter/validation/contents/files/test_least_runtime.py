"""Which ONNX Runtime a bundle says it needs: read off the model files, by code of its own."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
import pytest

from eptx.bundle import OnnxRuntime
from eptx.exporter.bundle.least_release import least_release
from eptx.exporter.bundle.lower import lower
from eptx.exporter.validation.contents.files.least_runtime import compare_least_runtime
from tests.exporter.bundle.test_least_release import NEEDS
from tests.exporter.bundle.test_lower import text
from tests.support.tiny_bundle import tiny_manifest

NESTED = "b = Gelu (x) a = com.microsoft.MatMulNBits (b, b, b, , b)"


def wrong(said: OnnxRuntime | None, *models: ir.Model) -> dict[str, str]:
    manifest = replace(tiny_manifest(), onnxruntime=said)
    checks = compare_least_runtime(manifest, {f"{i}.onnx": model for i, model in enumerate(models)})
    return {check.name.rpartition(": ")[2]: check.wrong for check in checks if check.wrong is not None}


@pytest.mark.parametrize(("body", "opset"), [graph[:2] for graph in NEEDS])
def test_two_readings_agree(body: str, opset: int) -> None:
    model = text(body, opset, 13)
    said, _ = least_release([(model, lower(model))], "cpu")
    assert wrong(said, model) == {}
    if said is not None:
        major, minor = said.version.split(".")
        for other in (f"{major}.{int(minor) - 1}", f"{major}.{int(minor) + 1}", f"2.{minor}"):
            assert wrong(replace(said, version=other), model) == {
                "onnxruntime.version": f"says {other}; the models need {said.version}"
            }
        assert list(wrong(replace(said, ir_version=14, opset=27), model)) == [
            "onnxruntime.ir_version",
            "onnxruntime.opset",
        ]


def test_a_need_that_is_not_known_is_not_claimed() -> None:
    for model in (
        text("y = com.microsoft.NobodyKnowsThis (x)", 18, 9),
        text("y = Abs (x)", 99, 9),
        text("y = Abs (x)", 18, 99),
    ):
        said = OnnxRuntime("1.31", model.ir_version, model.opset_imports[""])
        assert "than eptx knows of" in wrong(said, model)["onnxruntime.version"]


def test_every_node_and_every_graph_counts() -> None:
    nested = f"y = If (c) <then_branch = t () => (a) {{ {NESTED} }}, else_branch = e () => (a) {{ {NESTED} }}>"
    model, plain = text(nested, 20, 9, "float[2, 4] x, bool c"), text("y = Abs (x)", 18, 9)
    for models in ((model, plain), (plain, model)):
        assert wrong(OnnxRuntime("1.18", 9, 20), *models) == {}
        assert list(wrong(OnnxRuntime("1.15", 9, 18), *models)) == ["onnxruntime.version", "onnxruntime.opset"]
    value = ir.Value(name="a")
    node = ir.node("MatMulNBits", [value, value, value], domain="com.microsoft")
    graph = ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 21}, name="F")
    function = ir.Function("ai.eptx", "F", "", graph=graph, attributes=[])
    plain.functions[function.identifier()] = function
    assert wrong(OnnxRuntime("1.18", 9, 21), plain) == {}
    function.opset_imports[""] = 18
    assert wrong(OnnxRuntime("1.17", 9, 18), plain) == {}


def test_a_bundle_that_says_nothing() -> None:
    (check,) = compare_least_runtime(replace(tiny_manifest(), onnxruntime=None), {"model.onnx": text("y = Abs (x)")})
    assert (check.how, check.wrong) == ("unchecked", None)
