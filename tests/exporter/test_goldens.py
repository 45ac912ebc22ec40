"""Every golden of the released code, in every mode, on plain ONNX Runtime: logits within 2e-5 of the largest.

With the functions that a bundle holds, and with the native kernels where they are built.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from eptx.bundle import Bundle
from eptx.exporter import ExportOptions, Route, export_bundle
from eptx.exporter.base import load_transformers
from eptx.runtime._kernels import kernel_library

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 2e-5
EPT, TUCKA = ("ept_bert48", "ept_llama64"), ("tucka_bert48", "tucka_llama64")
#: Where the base graph comes from: traced from the folder, an ONNX file beside the folder, the ONNX file alone.
ORIGINS = ("folder", "onnx", "onnx alone")


@dataclass(frozen=True)
class Case:
    """One golden case with its base as an ONNX file."""

    name: str
    folder: Path
    settings: dict[str, object]
    arrays: dict[str, np.ndarray]
    onnx: Path

    @property
    def batches(self) -> range:
        return range(sum(name.endswith("input_ids") for name in self.arrays))

    def feeds(self, batch: int) -> dict[str, np.ndarray]:
        return {key: self.arrays[f"in{batch}.{key}"] for key in ("input_ids", "attention_mask")}

    def export(self, out: Path, options: ExportOptions, origin: str) -> Bundle:
        base = None if origin == "onnx alone" else self.folder / "base"
        from_onnx = None if origin == "folder" else self.onnx
        options = ExportOptions(**{**options.__dict__, "base_onnx": from_onnx})
        return export_bundle(base, [self.folder / "adapter"], out, options)


@pytest.fixture(scope="module")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    cases: dict[str, Case] = {}

    def get(name: str) -> Case:
        if name not in cases:
            folder = GOLDEN / name
            onnx = tmp_path_factory.mktemp(name) / "base.onnx"
            ir.save(load_transformers(folder / "base").model, onnx)
            arrays = dict(np.load(folder / "golden.npz"))
            cases[name] = Case(name, folder, json.loads((folder / "case.json").read_text()), arrays, onnx)
        return cases[name]

    return get


def _sessions(bundle: Bundle) -> list[ort.InferenceSession]:
    """Plain ONNX Runtime on the file, graph optimiser on and off, each without kernels and with them."""
    sessions = []
    levels = (ort.GraphOptimizationLevel.ORT_ENABLE_ALL, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    library = kernel_library() if bundle.manifest.operators is not None else None
    for level, kernels in product(levels, [None, library] if library is not None else [None]):
        options = ort.SessionOptions()
        if kernels is not None:
            options.register_custom_ops_library(str(kernels))
        options.graph_optimization_level = level
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        sessions.append(ort.InferenceSession(str(bundle.model), options, providers=["CPUExecutionProvider"]))
    return sessions


def _run(session: ort.InferenceSession, feeds: dict[str, np.ndarray], **more: np.ndarray) -> dict[str, np.ndarray]:
    names = [value.name for value in session.get_inputs()]
    known = {"token_type_ids": np.zeros_like(feeds["input_ids"]), **feeds, **more}
    outputs = [value.name for value in session.get_outputs()]
    return dict(zip(outputs, session.run(None, {name: known[name] for name in names}), strict=True))


def _close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= TOLERANCE * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("mode", ["conditioned", "dynamic"])
@pytest.mark.parametrize("name", EPT)
def test_ept_by_task_id(case_of: Callable[[str], Case], tmp_path: Path, name: str, mode: str, origin: str) -> None:
    case = case_of(name)
    bundle = case.export(tmp_path / "b", ExportOptions(mode=mode, top_k=case.settings["top_k"]), origin)  # type: ignore[arg-type]
    for session in _sessions(bundle):
        for batch in case.batches:
            feeds = case.feeds(batch)
            rows = len(feeds["input_ids"])
            wanted = [
                *(case.arrays[f"out{batch}.task{t}.logits"] for t in range(8)),
                case.arrays[f"base{batch}.logits"],
            ]
            for task, want in enumerate(wanted):
                _close(_run(session, feeds, task_id=np.full(rows, task))["logits"], want)
            mixed = (np.arange(rows) * 5 + 2) % 9
            want = np.stack([wanted[task][row] for row, task in enumerate(mixed)])
            _close(_run(session, feeds, task_id=mixed)["logits"], want)


@pytest.mark.parametrize("name", EPT)
def test_ept_all_tasks_in_one_batch(case_of: Callable[[str], Case], tmp_path: Path, name: str) -> None:
    case = case_of(name)
    for mode in ("conditioned", "dynamic"):
        options = ExportOptions(mode=mode, top_k=case.settings["top_k"])  # type: ignore[arg-type]
        sessions = _sessions(case.export(tmp_path / mode, options, "onnx"))
        one = {key: np.repeat(value[:1], 9, axis=0) for key, value in case.feeds(0).items()}
        want = [*(case.arrays[f"out0.task{t}.logits"][0] for t in range(8)), case.arrays["base0.logits"][0]]
        for session in sessions:
            _close(_run(session, one, task_id=np.arange(9))["logits"], np.stack(want))


@pytest.mark.parametrize("origin", ["onnx", "onnx alone"])
@pytest.mark.parametrize("name", EPT)
def test_ept_static(case_of: Callable[[str], Case], tmp_path: Path, name: str, origin: str) -> None:
    case = case_of(name)
    for task in range(8):
        options = ExportOptions(mode="static", top_k=case.settings["top_k"], task=f"task{task}")  # type: ignore[arg-type]
        for session in _sessions(case.export(tmp_path / str(task), options, origin)):
            for batch in case.batches:
                _close(_run(session, case.feeds(batch))["logits"], case.arrays[f"out{batch}.task{task}.logits"])


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("name", TUCKA)
def test_tucka_live(case_of: Callable[[str], Case], tmp_path: Path, name: str, origin: str) -> None:
    case = case_of(name)
    bundle = case.export(tmp_path / "b", ExportOptions(mode="dynamic"), origin)
    model = ir.load(bundle.model)
    router = next(node for node in model.graph if node.op_type == "TuckerRouter")
    model.graph.outputs.extend(router.outputs)
    router.outputs[0].type, router.outputs[1].type = ir.TensorType(ir.DataType.INT64), ir.TensorType(ir.DataType.FLOAT)
    group, weights = (value.name for value in router.outputs)
    ir.save(model, bundle.path / "routed.onnx")
    routed = ort.InferenceSession(str(bundle.path / "routed.onnx"), providers=["CPUExecutionProvider"])
    for batch in case.batches:
        for session in _sessions(bundle):
            _close(_run(session, case.feeds(batch))["logits"], case.arrays[f"out{batch}.logits"])
        outputs = _run(routed, case.feeds(batch))
        assert outputs[str(group)].tolist() == case.arrays[f"out{batch}.group"].reshape(-1).tolist()
        _close(outputs[str(weights)], case.arrays[f"out{batch}.weights"].reshape(1, -1))


@pytest.mark.parametrize("mode", ["static", "conditioned"])
@pytest.mark.parametrize("name", TUCKA)
def test_tucka_by_recorded_route(case_of: Callable[[str], Case], tmp_path: Path, name: str, mode: str) -> None:
    case = case_of(name)
    for batch in case.batches:
        weights = case.arrays[f"out{batch}.weights"].reshape(-1)
        route = Route(int(case.arrays[f"out{batch}.group"].reshape(-1)[0]), tuple(map(float, weights)))
        bundle = case.export(tmp_path / str(batch), ExportOptions(mode=mode, routes={None: route}), "onnx")  # type: ignore[arg-type]
        rows = len(case.feeds(batch)["input_ids"])
        for session in _sessions(bundle):
            got = _run(session, case.feeds(batch), task_id=np.zeros(rows, np.int64))["logits"]
            _close(got, case.arrays[f"out{batch}.logits"])
            if mode == "conditioned":
                off = _run(session, case.feeds(batch), task_id=np.ones(rows, np.int64))["logits"]
                _close(off, case.arrays[f"base{batch}.logits"])
