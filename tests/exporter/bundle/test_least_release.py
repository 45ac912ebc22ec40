"""The least ONNX Runtime of graphs made by hand: by IR version, opset, and operators of com.microsoft."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from eptx import ExportOptions
from eptx.bundle import OnnxRuntime
from eptx.errors import NotSupportedError, UsageError
from eptx.exporter.bundle.least_release import Need, check_asked, least_release
from eptx.exporter.bundle.lower import lower
from eptx.exporter.bundle.older_nodes import inline_functions
from eptx.exporter.options import options_of
from tests.exporter.bundle.test_lower import text
from tests.support.tiny_bundle import tiny_manifest, tiny_model

_GQA = "num_heads = 2, kv_num_heads = 1"
#: A graph's body and opset -> what it needs, and why.
NEEDS = [
    ("y = Abs (x)", 24, OnnxRuntime("1.15", 9, 18), "opset 18"),
    ("y = Pad (x, x)", 19, OnnxRuntime("1.15", 9, 19), "opset 19 (Pad)"),
    ("y = Gelu (x)", 20, OnnxRuntime("1.17", 9, 20), "opset 20 (Gelu)"),
    ("y = GroupNormalization (x, x, x)", 21, OnnxRuntime("1.18", 9, 21), "opset 21 (GroupNormalization)"),
    ("y = Swish (x)", 24, OnnxRuntime("1.24", 9, 24), "opset 24 (Swish)"),
    ("q = Cast <to = 17> (x) y = Cast <to = 1> (q)", 19, OnnxRuntime("1.15", 9, 19), "opset 19"),
    ("q = Cast <to = 22> (x) y = Cast <to = 1> (q)", 21, OnnxRuntime("1.18", 10, 21), "opset 21"),
    ("y = com.microsoft.BiasGelu (x, x)", 20, OnnxRuntime("1.15", 9, 18), "opset 18"),
    ("y = com.microsoft.MatMulNBits <bits = 4> (x, x, x)", 20, OnnxRuntime("1.17", 9, 18), "MatMulNBits"),
    ("y = com.microsoft.MatMulNBits (x, x, x, , x)", 20, OnnxRuntime("1.18", 9, 18), "MatMulNBits with 5 inputs"),
    (f"y = com.microsoft.GroupQueryAttention <{_GQA}> (x)", 20, OnnxRuntime("1.18", 9, 18), "on CPUs"),
    (
        f"y = com.microsoft.GroupQueryAttention <{_GQA}, softcap = 0.0> (x)",
        20,
        OnnxRuntime("1.20", 9, 18),
        "softcap of",
    ),
    ("y = com.microsoft.NobodyKnowsThis (x)", 20, None, "NobodyKnowsThis"),
]


def needed(*models: ir.Model, provider: str = "cpu") -> tuple[OnnxRuntime | None, Need]:
    return least_release([(model, lower(model)) for model in models], provider)


@pytest.mark.parametrize(("body", "opset", "wanted", "because"), NEEDS)
def test_what_a_graph_needs(body: str, opset: int, wanted: OnnxRuntime | None, because: str) -> None:
    found, most = needed(text(body, opset, 13))
    assert found == wanted
    assert because in most.what


def test_a_kernel_for_cpus_is_not_needed_on_cuda() -> None:
    model = text(f"y = com.microsoft.GroupQueryAttention <{_GQA}> (x)")
    found, _ = needed(model, provider="cuda")
    assert found == OnnxRuntime("1.17", 9, 18)


def test_the_newest_of_several_graphs_counts() -> None:
    """An encoder-decoder has two."""
    old, new = text("y = Abs (x)"), text("y = Gelu (x)")
    assert needed(old, new)[0] == needed(new, old)[0] == OnnxRuntime("1.17", 9, 20)


def test_bodies_of_functions_and_nested_graphs_count() -> None:
    body = "b = com.microsoft.MatMulNBits (x, x, x)"
    nested = f"y = If (c) <then_branch = t () => (b) {{ {body} }}, else_branch = e () => (b) {{ {body} }}>"
    found, _ = needed(text(nested, header="float[2, 4] x, bool c"))
    assert found == OnnxRuntime("1.17", 9, 18)
    model = text("y = Abs (x)")
    value = ir.Value(name="a")
    node = ir.node("MatMulNBits", [value, value, value], domain="com.microsoft")
    graph = ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 18}, name="F")
    function = ir.Function("ai.eptx", "F", "", graph=graph, attributes=[])
    model.functions[function.identifier()] = function
    assert needed(model)[0] == OnnxRuntime("1.17", 9, 18)


def test_functions_need_a_release_that_takes_them() -> None:
    """1.15 mixes up their names. In their place, their bodies need no newer one."""
    model = ir.from_proto(tiny_model())
    lowest = lower(model)
    found, most = least_release([(model, lowest)], "cpu")
    assert (found, most.what) == (OnnxRuntime("1.16", 9, 17), "operators of eptx's own")
    inline_functions(model)
    assert not model.functions and "ai.eptx" not in model.opset_imports
    assert {node.domain for node in model.graph.all_nodes()} == {""}
    assert [value.name for value in model.graph.outputs] == ["last_hidden_state", "logits", "task_id_used"]
    assert least_release([(model, lowest)], "cpu")[0] == OnnxRuntime("1.15", 9, 17)


def test_a_release_that_is_asked_for() -> None:
    _, most = needed(text("y = Gelu (x)"))
    for enough in (None, "1.17", "1.17.3", "1.31", "2.0"):
        check_asked(enough, most)
    with pytest.raises(
        NotSupportedError, match=r"--min-ort 1\.16\.3: the graph has opset 20 \(Gelu\), which came with"
    ):
        check_asked("1.16.3", most)
    with pytest.raises(NotSupportedError, match="the graph has X, and eptx knows no release"):
        check_asked("1.31", Need("X", None))


@pytest.mark.parametrize(
    ("asked", "error"),
    [("1.14", NotSupportedError), ("0.9", NotSupportedError), ("", UsageError), ("1", UsageError)]
    + [(text, UsageError) for text in ("1.17rc1", "v1.17", "1.17.3.1", "latest", "1.123456", "１.１７", "1.17 ")],
)
def test_what_is_asked_must_be_a_release(asked: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"--min-ort .*ONNX Runtime"):
        ExportOptions(mode="static", min_ort=asked).check()


def test_saved_models_are_of_these_versions(tmp_path: Path) -> None:
    model = text("t = Transpose (x) y = Abs (t)", 24)
    lower(model)
    ir.save(model, tmp_path / "model.onnx")
    saved = onnx.load(tmp_path / "model.onnx")
    assert (saved.ir_version, {own.domain: own.version for own in saved.opset_import}[""]) == (9, 18)


def test_a_bundle_that_is_written_again_keeps_what_was_asked() -> None:
    """Adding and removing tasks, and quantizing, take the options of the export."""
    sources = replace(tiny_manifest().sources, min_ort="1.15")
    assert options_of(replace(tiny_manifest(), sources=sources)).min_ort == "1.15"
    assert options_of(tiny_manifest()).min_ort is None
