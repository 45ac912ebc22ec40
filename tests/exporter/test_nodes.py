"""What a bundle's graph holds for an adapter: few nodes, and its numbers as they are stored."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.bases import load_transformers
from eptx.exporter.validation.instrument import instrument
from eptx.manifest.names import OPERATOR_DOMAIN
from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.running.backends import backends
from eptx.runtime.validation.running.models import open_instrumented
from tests.exporter.bases.conftest import build
from tests.exporter.validation.adapters import linear_shapes, write_ept

LAYERS = 2
#: nodes of one of BERT's layers: q, k and v with their biases; the attention's output, and the two of the feed-forward
#: part, whose biases are added by fused operators of the base
PER_LAYER = {"Biased{}3": 1, "{}": 3}
OPERATORS = {"conditioned": "PyramidDelta", "dynamic": "RoutedPyramidDelta"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT, its graph and an EPT adapter of all linears of its layers."""
    folder = tmp_path_factory.mktemp("bert")
    build("bert").save_pretrained(folder / "base")
    ir.save(load_transformers(folder / "base").model, folder / "base.onnx")
    shapes = linear_shapes(folder / "base", ("query", "key", "value", "intermediate.dense", "output.dense"))
    write_ept(folder / "ept", shapes, seed=3, rank=32, sizes=(2, 3, 3, 5))
    return folder


def _export(folder: Path, out: Path, **options: Any) -> tuple[Bundle, ir.Model]:
    settings = ExportOptions(top_k=2, base_onnx=folder / "base.onnx", **options)
    bundle = export_bundle(folder / "base", [folder / "ept"], out, settings)
    return bundle, ir.load(bundle.model)


def _operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph if node.domain == OPERATOR_DOMAIN)


def test_modules_that_read_one_value_are_one_node(folder: Path, tmp_path: Path) -> None:
    base = ir.load(folder / "base.onnx").graph
    for mode, operator in OPERATORS.items():
        bundle, model = _export(folder, tmp_path / mode, mode=mode)
        assert _operators(model) == {name.format(operator): LAYERS * count for name, count in PER_LAYER.items()}
        there, before = (Counter(node.op_type for node in graph) for graph in (model.graph, base))
        for op_type in ("Gather", "Split", "Concat", "Range"):
            assert there[op_type] == before[op_type]
        biased = {name for name, place in bundle.manifest.modules.items() if place.bias}
        assert biased == {name for name in bundle.manifest.modules if ".self." in name}
        assert there["Add"] == before["Add"] - len(biased)


@pytest.mark.parametrize("mode", ["conditioned", "dynamic"])
def test_stored_numbers_are_handed_over_as_they_are(folder: Path, tmp_path: Path, mode: Any) -> None:
    bundle, model = _export(folder, tmp_path / "bundle", mode=mode, precision="fp16")
    inputs = {
        value for node in model.graph if node.domain == OPERATOR_DOMAIN for value in node.inputs if value is not None
    }
    assert not [value for value in inputs if (node := value.producer()) is not None and node.op_type == "Cast"]
    constants = {str(value.name): value for value in inputs if value.is_initializer()}
    stored = {name for name, value in constants.items() if value.dtype == ir.DataType.FLOAT16}
    assert {f"{name}.{part}.fp16" for name in bundle.manifest.modules for part in ("lora_A", "lora_B")} <= stored
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(bundle.model), options, providers=["CPUExecutionProvider"])
    graph = ir.load(tmp_path / "optimized.onnx").graph
    casts = [node for node in graph if node.op_type in ("Cast", "CastLike")]
    assert not [node for node in casts if node.inputs[0] is not None and node.inputs[0].is_initializer()]


def test_routers_are_stored_as_float32(folder: Path, tmp_path: Path) -> None:
    """Of twelve tasks, so that the embeddings are large enough for float16 storage to matter."""
    shapes = linear_shapes(folder / "base", ("query",))
    adapter = write_ept(tmp_path / "ept", shapes, seed=3, tasks=12, sizes=(2, 3, 3, 5))
    options = ExportOptions(mode="dynamic", precision="fp16", top_k=2, base_onnx=folder / "base.onnx")
    model = ir.load(export_bundle(folder / "base", [adapter], tmp_path / "bundle", options).model)
    routers = {name: v for name, v in model.graph.initializers.items() if ".lora_task_embedding" in name}
    assert len(routers) == len(shapes)
    assert all(value.dtype == ir.DataType.FLOAT for value in routers.values())


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("mode", ["conditioned", "dynamic"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_modules_route_is_seen(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any, mode: Any, kernels: bool
) -> None:
    if not kernels:
        monkeypatch.setenv("EPTX_NATIVE", "0")
    bundle, _ = _export(folder, tmp_path / "bundle", mode=mode, precision=precision)
    graph = instrument(bundle)
    assert set(graph.routes) == set(bundle.manifest.modules)
    ids = np.full((3, 4), 7)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    batch = Batch("three rows", feeds, ("task2", "task0", "base"))
    (routes,) = open_instrumented(bundle, graph, backends(bundle, ["cpu"])[-1]).run(batch).routes
    assert all(route.choice.shape == route.weights.shape == (3, 2) for route in routes.values())
    assert all(not route.weights[2].any() and (route.weights[:2] > 0).all() for route in routes.values())
    assert len({route.choice[:2].tobytes() for route in routes.values()}) > LAYERS  # each module its own
