"""ALBERT runs one layer many times: its adapter, too, and each time on what is there then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.errors import NotSupportedError, UsageError
from eptx.exporter import ExportOptions, Route
from eptx.exporter.adapters.routing.route import parse_frozen
from eptx.exporter.trained import Trained
from eptx.exporter.validation import ValidateOptions, validate_bundle
from eptx.runtime.ort.kernels import kernel_library
from tests.exporter.validation.adapters import linear_shapes, write_ept, write_lora, write_tucka
from tests.exporter.validation.wrong import edits
from tests.support.trained import by_task, trained_model

CASES = {
    "ept": ExportOptions(mode="dynamic", top_k=2, tasks=("a", "b", "c")),
    "lora": ExportOptions(mode="conditioned", tasks=("a",)),
}


@pytest.mark.parametrize("method", CASES)
def test_a_repeated_layer_is_adapted_every_time(method: str, tiny: Any, tmp_path: Path) -> None:
    folder, options = tiny.folder("albert"), CASES[method]
    ir.save(tiny.graph("albert").model, tmp_path / "base.onnx")
    shapes = linear_shapes(folder, ("query", "ffn"))
    write: Any = {"ept": write_ept, "lora": write_lora}[method]
    path = write(tmp_path / "adapter", shapes, seed=4, strength=0.4)
    options = ExportOptions(**{**options.__dict__, "base_onnx": tmp_path / "base.onnx"})
    bundle = export_bundle(folder, [path], tmp_path / "bundle", options)
    reference = trained_model(folder, [path], top_k=options.top_k, tasks=options.tasks)
    session = ort.InferenceSession(str(bundle.model), providers=["CPUExecutionProvider"])
    for rows, length in ((5, 8), (1, 3)):
        ids = np.random.default_rng(rows).integers(3, 90, (rows, length))
        mask = (np.arange(length) < np.maximum(1, length - np.arange(rows))[:, None]).astype(np.int64)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        tasks = {"ept": np.arange(rows) % 5 - 1, "lora": np.arange(rows) % 2}[method]
        want = by_task(reference, feeds, tasks).outputs["logits"]
        taken = {value.name for value in session.get_inputs()}
        got = session.run(["logits"], {k: v for k, v in (feeds | {"task_id": tasks}).items() if k in taken})[0]
        assert np.abs(got - want).max() <= 2e-5 * max(1.0, np.abs(want).max())


LIVE, FREE = ("batch", "row"), (Route(0, (0.9, 0.2)), Route(2, (0.1, 0.7)))
TUCKA = {
    "batch": ExportOptions(mode="dynamic"),
    "row": ExportOptions(mode="dynamic", routing="row"),
    "conditioned": ExportOptions(mode="conditioned", routes={"a": FREE, "b": FREE[::-1]}, tasks=("a", "b")),
    "static": ExportOptions(mode="static", routes={"b": FREE}, tasks=("a", "b"), task="b"),
}


@pytest.fixture
def routed(tiny: Any, tmp_path: Path) -> Callable[[str], tuple[Bundle, Trained]]:
    """A bundle of one of `TUCKA`, on an ALBERT of two layers whose query routes, and the trained model."""
    folder = tiny.folder("albert")
    ir.save(tiny.graph("albert").model, tmp_path / "base.onnx")
    path = write_tucka(tmp_path / "adapter", linear_shapes(folder, ("query", "key", "ffn")), seed=4, strength=0.4)

    def make(mode: str, **changes: Any) -> tuple[Bundle, Trained]:
        options = replace(TUCKA[mode], base_onnx=tmp_path / "base.onnx", **changes)
        bundle = export_bundle(folder, [path], tmp_path / mode, options)
        return bundle, trained_model(folder, [path], tasks=options.tasks)

    return make


def _sessions(bundle: Bundle) -> list[ort.InferenceSession]:
    """By the functions that the bundle holds, and by the kernels."""
    sessions = []
    for library in (None, kernel_library()):
        options = ort.SessionOptions()
        if library is not None:
            options.register_custom_ops_library(str(library))
        sessions.append(ort.InferenceSession(str(bundle.model), options, providers=["CPUExecutionProvider"]))
    return sessions


@pytest.mark.parametrize("mode", TUCKA)
def test_a_router_routes_in_every_layer(routed: Callable[[str], tuple[Bundle, Trained]], mode: str) -> None:
    bundle, reference = routed(mode)
    for session, (rows, length) in product(_sessions(bundle), ((5, 8), (1, 3))):
        ids = np.random.default_rng(rows).integers(3, 90, (rows, length))
        mask = (np.arange(length) < np.maximum(1, length - np.arange(rows))[:, None]).astype(np.int64)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        tasks = np.arange(rows) % 3 if mode == "conditioned" else np.full(rows, mode == "static", np.int64)
        frozen: Any = None
        if mode not in LIVE:  # of each call, a route for each row; it is not looked at for task 2, `base`
            frozen = [[FREE[call if mode == "static" else call ^ (task % 2)] for task in tasks] for call in (0, 1)]
        want = by_task(reference, feeds, tasks, frozen=frozen, routing="row" if mode == "row" else "batch")
        taken = {value.name for value in session.get_inputs()}
        got = session.run(["logits"], {k: v for k, v in (feeds | {"task_id": tasks}).items() if k in taken})[0]
        assert np.abs(got - want.outputs["logits"]).max() <= 2e-5 * max(1.0, np.abs(want.outputs["logits"]).max())


@pytest.mark.parametrize("mode", TUCKA)
def test_what_routes_in_every_layer_passes_validation(
    routed: Callable[[str], tuple[Bundle, Trained]], mode: str
) -> None:
    bundle, _ = routed(mode)
    report = validate_bundle(bundle.path, ValidateOptions(providers=["cpu"]))
    assert report.passed, report.reason


@pytest.mark.parametrize("mode", ["batch", "conditioned"])
def test_another_layers_route_fails(routed: Callable[[str], tuple[Bundle, Trained]], mode: str) -> None:
    """The first layer's route for all of them, which is what a router that routes once would give."""
    bundle, _ = routed(mode)

    def first_for_all(graph: ir.Graph) -> None:
        groups = list(dict.fromkeys(_routes(graph)))
        assert len(groups) == 2
        for node in graph:
            for at, value in enumerate(node.inputs):
                if node.op_type.startswith("TuckerDelta") and value in groups[1]:
                    node.replace_input_with(at, groups[0][groups[1].index(value)])

    edits.graph(first_for_all)(bundle.path)
    assert not validate_bundle(bundle.path, ValidateOptions(providers=["cpu"])).passed


def _routes(graph: ir.Graph) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Group and weights of every update, in the graph's order."""
    for node in graph:
        if node.op_type.startswith("TuckerDelta"):
            inputs = [value for value in node.inputs if value is not None]
            at = next(at for at, value in enumerate(inputs) if _is_group(value))
            yield inputs[at], inputs[at + 1]


def _is_group(value: ir.Value) -> bool:
    node = value.producer()
    if node is None or value.index() != 0:
        return False
    table = node.inputs[0] if node.op_type == "Gather" else None
    return node.op_type == "TuckerRouter" or (table is not None and "task_group" in str(table.name))


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_several_weights_of_a_module_are_not_quantized(
    tiny: Any, routed: Callable[[str], tuple[Bundle, Trained]], tmp_path: Path, precision: Any
) -> None:
    routed("batch")  # writes the adapter and the base's graph
    options = replace(TUCKA["static"], base_onnx=tmp_path / "base.onnx", precision=precision)
    with pytest.raises(NotSupportedError, match="one module is folded to several weights; use --mode conditioned"):
        export_bundle(tiny.folder("albert"), [tmp_path / "adapter"], tmp_path / "quantized", options)
    assert not (tmp_path / "quantized").exists()


def test_as_many_routes_as_calls(routed: Callable[..., tuple[Bundle, Trained]], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"2 times on the data: .* 'a' needs 2 routes, joined by /, and has 1$"):
        routed("conditioned", routes={None: FREE[0]})
    assert not (tmp_path / "conditioned").exists()
    assert parse_frozen("0:0.9,0.2/2:0.1,0.7") == FREE
    bundle, _ = routed("static")
    assert bundle.manifest.route == {
        "tasks": {"b": [{"group": route.group, "weights": list(route.weights)} for route in FREE]},
        "constant": [],
    }
