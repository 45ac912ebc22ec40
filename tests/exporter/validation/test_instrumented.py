"""What is seen of a bundle: each module's output, and the route that its operator used, a router within it too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
import transformers

from eptx.bundle import Bundle, read_bundle
from eptx.errors import BundleError
from eptx.exporter import read_adapter
from eptx.exporter.methods.ept.fold import route
from eptx.exporter.validation.instrument import instrument
from eptx.manifest.names import OPERATOR_DOMAIN
from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.running.backends import backends
from eptx.runtime.validation.running.models import Observation, open_instrumented
from tests.exporter.validation.adapters import linear_shapes, write_ept, write_tucka
from tests.exporter.validation.workshop import Workshop
from tests.malformed.bundles.test_bundles import relist
from tests.support.bundles import copy_bundle

ENDS = ("query", "key", "value", "intermediate.dense", "output.dense")
TASKS = 3


@pytest.fixture(scope="module")
def ept(bert: Workshop) -> Path:
    """All linears of the layers."""
    return write_ept(bert.path(), linear_shapes(bert.base, ENDS), seed=9)


def _observed(bundle: Bundle, ids: np.ndarray | None) -> tuple[Observation, dict[str, np.ndarray]]:
    rows = 5 if ids is None else len(ids)
    tokens = np.random.default_rng(2).integers(5, 40, size=(rows, 6))
    feeds = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
    graph = instrument(bundle)
    assert set(graph.routes) == set(bundle.manifest.modules)
    known = {-1: "auto", TASKS: "base"}
    names = ("task0",) * rows if ids is None else tuple(known.get(i, f"task{i}") for i in ids.tolist())
    return open_instrumented(bundle, graph, backends(bundle, ["cpu"])[-1]).run(Batch("b", feeds, names)), feeds


def _operators(bundle: Bundle) -> set[str]:
    return {node.op_type for node in ir.load(bundle.model).graph if node.domain == OPERATOR_DOMAIN}


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("mode", ["conditioned", "dynamic"])
def test_told_routes(bert: Workshop, ept: Path, monkeypatch: pytest.MonkeyPatch, mode: str, kernels: bool) -> None:
    if not kernels:
        monkeypatch.setenv("EPTX_NATIVE", "0")
    bundle = bert.export(ept, mode=mode, top_k=2)
    ids = np.array([1, TASKS, 0, 2, 1])
    seen, _ = _observed(bundle, ids)
    modules: Any = read_adapter([ept], top_k=2).modules  # type: ignore[attr-defined]
    for name, found in seen.routes[0].items():
        for row, task in enumerate(ids):
            if task == TASKS:
                assert not found.weights[row].any()
                continue
            experts, weights = route(modules[name], int(task), 2)
            np.testing.assert_array_equal(found.choice[row], experts)
            np.testing.assert_allclose(found.weights[row], weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernels", [True, False])
def test_inferred_routes(bert: Workshop, ept: Path, monkeypatch: pytest.MonkeyPatch, kernels: bool) -> None:
    """Of each module for itself, beside rows that are told: the task that its own input resembles most."""
    if not kernels:
        monkeypatch.setenv("EPTX_NATIVE", "0")
    bundle = bert.export(ept, mode="dynamic", top_k=2)
    assert _operators(bundle) == {"BiasedRoutedPyramidDelta3", "RoutedPyramidDelta"}
    ids = np.array([-1, TASKS, -1, 2, -1])
    seen, feeds = _observed(bundle, ids)
    modules: Any = read_adapter([ept], top_k=2).modules  # type: ignore[attr-defined]
    embeddings = transformers.AutoModel.from_pretrained(bert.base).eval().embeddings
    with torch.no_grad():  # what the first layer's query, key and value read
        first = embeddings(torch.from_numpy(feeds["input_ids"])).numpy()[:, 0]
    tasks = set()
    for name, found in seen.routes[0].items():
        per_task = [route(modules[name], task, 2)[0].tolist() for task in range(TASKS)]
        assert found.choice[3].tolist() == per_task[2]
        assert not found.weights[1].any()
        towards = modules[name].task_embedding
        for row in (0, 2, 4):
            assert found.choice[row].tolist() in per_task
            if ".layer.0.attention.self." in name:
                nearest = int(np.argmax(towards @ first[row] / np.linalg.norm(towards, axis=1)))
                assert found.choice[row].tolist() == per_task[nearest]
            assert (found.weights[row] > 0).all()
            tasks.add((row, tuple(found.choice[row].tolist()) == tuple(per_task[0])))
    assert len(tasks) > 3  # not all modules of a row the same


@pytest.mark.parametrize("mode", ["conditioned", "dynamic"])
def test_module_outputs_have_the_bias(bert: Workshop, ept: Path, mode: str) -> None:
    """Where the manifest says so: the operators of q, k and v add it, and here nothing else."""
    bundle = bert.export(ept, mode=mode, top_k=2)
    seen, feeds = _observed(bundle, np.full(5, TASKS))
    outputs: dict[str, torch.Tensor] = {}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(bert.base).eval()
    for name in bundle.manifest.modules:
        model.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: outputs.update({name: y}))
    with torch.no_grad():
        model(**{name: torch.from_numpy(array) for name, array in feeds.items()})
        for name, place in bundle.manifest.modules.items():
            assert place.bias == (".self." in name)
            want = outputs[name] if place.bias else outputs[name] - model.get_submodule(name).bias
            assert np.abs(seen.modules[name] - want.numpy()).max() <= 1e-5 * np.abs(want.numpy()).max()


@pytest.mark.parametrize("routing", ["batch", "row"])
def test_updated_inputs(bert: Workshop, routing: str) -> None:
    """TuckA updates the input of a wider module: its route is that of the operator that its product reads."""
    adapter = write_tucka(bert.path(), linear_shapes(bert.base, ENDS), seed=3)
    bundle = bert.export(adapter, mode="dynamic", routing=routing)
    manifest = bundle.manifest
    wide = [name for name in manifest.modules if name.endswith("intermediate.dense")]
    assert wide
    graph = ir.load(bundle.model).graph
    outputs = {value.name: value for node in graph for value in node.outputs}
    for name in wide:
        product = outputs[manifest.modules[name].output].producer()
        assert product is not None
        assert product.op_type == "MatMul"
        assert product.inputs[0] is not None
        assert product.inputs[0].producer().op_type == "TuckerDelta"  # type: ignore[union-attr]
    seen, _ = _observed(bundle, None)
    first = next(iter(seen.routes[0].values()))
    for found in seen.routes[0].values():
        np.testing.assert_array_equal(found.choice, first.choice)
        np.testing.assert_array_equal(found.weights, first.weights)


def test_an_output_whose_name_is_not_utf_8(bert: Workshop, ept: Path, tmp_path: Path) -> None:
    """onnx_ir reads it and cannot write it."""
    folder = copy_bundle(bert.export(ept, mode="dynamic", top_k=2).path, tmp_path / "bundle")
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes().replace(b"task_id_used", b"task_id\xff\xfesed"))
    relist(folder)
    with pytest.raises(BundleError, match=r"model.onnx: not a valid ONNX model: .*utf-8") as e:
        instrument(read_bundle(folder))
    assert "\n" not in str(e.value)
