"""Every golden of the released code, in every mode, on plain ONNX Runtime: logits within 2e-5 of the largest.

With the functions that a bundle holds, and with the native kernels where they are built. A decoder goes through
GenAI's builder, and what that makes is asked twice: for all tokens at once, and token by token with its cache.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions, Route
from eptx.exporter.bases import load_transformers
from eptx.runtime.ort.kernels import kernel_library
from tests.exporter.goldens.by_proof import passes
from tests.support.decoders import Steps, write_tokenizer
from tests.support.trained import more_kernels

GOLDEN = Path(__file__).parents[2] / "golden"
TOLERANCE = 2e-5
EPT, TUCKA = ("ept_bert48", "ept_bert_ksbig", "ept_llama64"), ("tucka_bert48", "tucka_llama64")
#: DeBERTa-v2 with `share_att_key`: two routes serve one forward.
TWICE = ("tucka_deberta64", "tucka_glue_folded")
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
    base: Path

    @property
    def batches(self) -> range:
        return range(sum(name.endswith("input_ids") for name in self.arrays))

    def feeds(self, batch: int) -> dict[str, np.ndarray]:
        return {key: self.arrays[f"in{batch}.{key}"] for key in ("input_ids", "attention_mask")}

    def export(self, out: Path, options: ExportOptions, origin: str) -> Bundle:
        base = None if origin == "onnx alone" else self.base
        from_onnx = None if origin == "folder" else self.onnx
        options = ExportOptions(**{**options.__dict__, "base_onnx": from_onnx})
        return export_bundle(base, [self.folder / "adapter"], out, options)


@pytest.fixture(scope="module")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    cases: dict[str, Case] = {}

    def get(name: str) -> Case:
        if name not in cases:
            folder = GOLDEN / name
            place = tmp_path_factory.mktemp(name)
            onnx, base = place / "base.onnx", folder / "base"
            ir.save(load_transformers(base).model, onnx)
            if name.endswith("llama64"):
                base = Path(shutil.copytree(base, place / "base"))
                write_tokenizer(base, 180)
            arrays = dict(np.load(folder / "golden.npz"))
            cases[name] = Case(name, folder, json.loads((folder / "case.json").read_text()), arrays, onnx, base)
        return cases[name]

    return get


def _sessions(bundle: Bundle) -> list[ort.InferenceSession]:
    """Plain ONNX Runtime on the file, graph optimizer on and off, each without kernels and with them."""
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
    """All tokens in one call."""
    known = {"token_type_ids": np.zeros_like(feeds["input_ids"]), **_no_cache(session, feeds), **feeds, **more}
    outputs = [value.name for value in session.get_outputs()]
    inputs = {value.name: known[value.name] for value in session.get_inputs()}
    return dict(zip(outputs, session.run(None, inputs), strict=True))


def _no_cache(session: ort.InferenceSession, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rows = len(feeds["input_ids"])
    past = [value for value in session.get_inputs() if value.name.startswith("past_key_values.")]
    return {v.name: np.zeros((rows, v.shape[1], 0, v.shape[3]), np.float32) for v in past}


def _logits(session: ort.InferenceSession, feeds: dict[str, np.ndarray], **more: np.ndarray) -> list[np.ndarray]:
    """Of all tokens in one call and, where there is a cache, of each token in its own."""
    found = [_run(session, feeds, **more)["logits"]]
    cache = _no_cache(session, feeds)
    if not cache:
        return found
    ids, steps = feeds["input_ids"], []
    for at in range(ids.shape[1]):
        part = {"input_ids": ids[:, at : at + 1], "attention_mask": feeds["attention_mask"][:, : at + 1]}
        outputs = _run(session, part, **cache, **more)
        cache = {name: outputs[name.replace("past_key_values.", "present.")] for name in cache}
        steps.append(outputs["logits"])
    return [*found, np.concatenate(steps, axis=1)]


def _close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= TOLERANCE * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("mode", ["static", "conditioned", "dynamic"])
def test_kernels_past_the_gate_are_never_chosen(case_of: Callable[[str], Case], tmp_path: Path, mode: str) -> None:
    """`set_expert_kernel_sizes` with ten sizes saves ten kernels; the released gate chooses among eight."""
    case = case_of("ept_bert48")
    folder = more_kernels(case.folder / "adapter", tmp_path / "adapter")
    options = ExportOptions(mode=mode, top_k=case.settings["top_k"], task="task3" if mode == "static" else None)  # type: ignore[arg-type]
    bundle = export_bundle(case.base, [folder], tmp_path / "b", options)
    for session in _sessions(bundle):
        feeds = case.feeds(0)
        more = {} if mode == "static" else {"task_id": np.full(len(feeds["input_ids"]), 3)}
        for got in _logits(session, feeds, **more):
            _close(got, case.arrays["out0.task3.logits"])


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
                for got in _logits(session, feeds, task_id=np.full(rows, task)):
                    _close(got, want)
            mixed = (np.arange(rows) * 5 + 2) % 9
            want = np.stack([wanted[task][row] for row, task in enumerate(mixed)])
            for got in _logits(session, feeds, task_id=mixed):
                _close(got, want)


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


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("name", EPT)
def test_ept_static(case_of: Callable[[str], Case], tmp_path: Path, name: str, origin: str) -> None:
    case = case_of(name)
    for task in range(0, 8, 3 if origin == "folder" else 1):  # a folder is made a graph of for every task
        options = ExportOptions(mode="static", top_k=case.settings["top_k"], task=f"task{task}")  # type: ignore[arg-type]
        for session in _sessions(case.export(tmp_path / str(task), options, origin)):
            for batch in case.batches:
                for got in _logits(session, case.feeds(batch)):
                    _close(got, case.arrays[f"out{batch}.task{task}.logits"])


def _routed(bundle: Bundle) -> tuple[ort.InferenceSession, list[tuple[str, str]]]:
    """A copy of a bundle that gives its routers' groups and weights too, and their names by the routers' order."""
    model = ir.load(bundle.model)
    routers = [node.outputs for node in model.graph if node.op_type == "TuckerRouter"]
    for group, weights in routers:
        model.graph.outputs.extend((group, weights))
        group.type, weights.type = ir.TensorType(ir.DataType.INT64), ir.TensorType(ir.DataType.FLOAT)
    ir.save(model, bundle.path / "routed.onnx")
    session = ort.InferenceSession(str(bundle.path / "routed.onnx"), providers=["CPUExecutionProvider"])
    return session, [(str(group.name), str(weights.name)) for group, weights in routers]


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("name", (*TUCKA, *TWICE))
def test_tucka_live(case_of: Callable[[str], Case], tmp_path: Path, name: str, origin: str) -> None:
    case = case_of(name)
    bundle = case.export(tmp_path / "b", ExportOptions(mode="dynamic"), origin)
    routed, routers = _routed(bundle)
    assert len(routers) == 1 + (name in TWICE)
    for batch in case.batches:
        for session in _sessions(bundle):
            _close(_run(session, case.feeds(batch))["logits"], case.arrays[f"out{batch}.logits"])
        outputs = _run(routed, case.feeds(batch))
        recorded = {which: routers[at] for which, at in (("", -1), ("first_", 0))}
        for which, (group, weights) in recorded.items():
            if f"out{batch}.{which}group" in case.arrays:
                assert outputs[group].tolist() == case.arrays[f"out{batch}.{which}group"].reshape(-1).tolist()
                _close(outputs[weights], case.arrays[f"out{batch}.{which}weights"].reshape(1, -1))


@pytest.mark.parametrize("mode", ["batch", "row", "conditioned", "static"])
@pytest.mark.parametrize("name", TWICE)
def test_two_routes_pass_validation(case_of: Callable[[str], Case], tmp_path: Path, name: str, mode: str) -> None:
    case = case_of(name)
    live: dict[str, Any] = {"mode": "dynamic", "routing": mode}
    frozen: dict[str, Any] = {"mode": mode, "routes": {None: Route(1, (0.7, 0.4))}}
    options = ExportOptions(**(live if mode in ("batch", "row") else frozen))
    passes(case.export(tmp_path / "b", options, "onnx"))


@pytest.mark.parametrize("name", TWICE)
def test_a_row_alone_is_a_batch_of_its_own(case_of: Callable[[str], Case], tmp_path: Path, name: str) -> None:
    """Routing by the row gives every row what the released code gives a batch of it alone, whatever is beside it."""
    case = case_of(name)
    bundle = case.export(tmp_path / "b", ExportOptions(mode="dynamic", routing="row"), "onnx")
    alone = [batch for batch in case.batches if len(case.feeds(batch)["input_ids"]) == 1]
    assert len(alone) > 1
    length = max(case.feeds(batch)["input_ids"].shape[1] for batch in alone)
    feeds = {
        key: np.concatenate([_longer(case.feeds(batch)[key], length) for batch in alone])
        for key in ("input_ids", "attention_mask")
    }
    want = np.concatenate([case.arrays[f"out{batch}.logits"] for batch in alone])
    for session in _sessions(bundle):
        _close(_run(session, feeds)["logits"], want)


def _longer(row: np.ndarray, length: int) -> np.ndarray:
    return np.pad(row, [(0, 0), (0, length - row.shape[1])])


@pytest.mark.parametrize("mode", ["static", "conditioned"])
@pytest.mark.parametrize("name", TWICE)
def test_tucka_by_the_route_of_the_text(case_of: Callable[[str], Case], tmp_path: Path, name: str, mode: str) -> None:
    """The route of layer 0's text is given; that of the positions, which serves all the rest, is not to be given."""
    case = case_of(name)
    live, routers = _routed(case.export(tmp_path / "live", ExportOptions(mode="dynamic"), "onnx"))
    for batch in case.batches:
        first = [_run(live, case.feeds(batch))[name] for name in routers[0]]
        if f"out{batch}.first_group" in case.arrays:
            first = [case.arrays[f"out{batch}.first_{what}"] for what in ("group", "weights")]
        route = Route(int(first[0].reshape(-1)[0]), tuple(map(float, first[1].reshape(-1))))
        bundle = case.export(tmp_path / str(batch), ExportOptions(mode=mode, routes={None: route}), "onnx")  # type: ignore[arg-type]
        assert bundle.manifest.route is not None
        (constant,) = bundle.manifest.route["constant"]
        assert (constant["call"], constant["group"]) == (1, int(case.arrays[f"out{batch}.group"]))
        np.testing.assert_allclose(constant["weights"], case.arrays[f"out{batch}.weights"], rtol=0, atol=1e-6)
        rows = len(case.feeds(batch)["input_ids"])
        for session in _sessions(bundle):
            got = _run(session, case.feeds(batch), task_id=np.zeros(rows, np.int64))["logits"]
            _close(got, case.arrays[f"out{batch}.logits"])
            if mode == "conditioned" and name == "tucka_deberta64":  # the other's base has the trained head
                off = _run(session, case.feeds(batch), task_id=np.ones(rows, np.int64))["logits"]
                _close(off, case.arrays[f"base{batch}.logits"])


@pytest.mark.parametrize("origin", ["folder", "onnx"])
@pytest.mark.parametrize("mode", ["static", "conditioned"])
@pytest.mark.parametrize("name", TUCKA)
def test_tucka_by_recorded_route(
    case_of: Callable[[str], Case], tmp_path: Path, name: str, mode: str, origin: str
) -> None:
    case = case_of(name)
    for batch in list(case.batches)[: 2 if origin == "folder" else None]:
        weights = case.arrays[f"out{batch}.weights"].reshape(-1)
        route = Route(int(case.arrays[f"out{batch}.group"].reshape(-1)[0]), tuple(map(float, weights)))
        bundle = case.export(tmp_path / str(batch), ExportOptions(mode=mode, routes={None: route}), origin)  # type: ignore[arg-type]
        rows = len(case.feeds(batch)["input_ids"])
        for session in _sessions(bundle):
            for got in _logits(session, case.feeds(batch), task_id=np.zeros(rows, np.int64)):
                _close(got, case.arrays[f"out{batch}.logits"])
            if mode == "conditioned":
                for off in _logits(session, case.feeds(batch), task_id=np.ones(rows, np.int64)):
                    _close(off, case.arrays[f"base{batch}.logits"])


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("mode", ["conditioned", "dynamic"])
def test_rows_of_several_lengths_go_on_from_where_they_are(
    case_of: Callable[[str], Case], tmp_path: Path, mode: str, kernels: bool
) -> None:
    """Padded on the right, each row of its own task: what follows a short row is not what follows its padding."""
    case = case_of("ept_llama64")
    bundle = case.export(tmp_path / "b", ExportOptions(mode=mode, top_k=case.settings["top_k"]), "folder")  # type: ignore[arg-type]
    ids, tasks, lengths = case.feeds(0)["input_ids"][[0, 1, 0]], [4, 7, 8], [5, 9, 1]
    wanted = [*(case.arrays[f"out0.task{t}.logits"] for t in range(8)), case.arrays["base0.logits"]]
    model = Steps(bundle, kernels=kernels)
    more = {"task_id": np.array(tasks)}
    first = model.prefill([row[:n].tolist() for row, n in zip(ids, lengths, strict=True)], **more)["logits"]
    for row, (task, n) in enumerate(zip(tasks, lengths, strict=True)):
        _close(first[row, :n], wanted[task][row % 2, :n])
    for step in range(3):
        got = model.decode([int(ids[row, n + step]) for row, n in enumerate(lengths)], **more)["logits"]
        for row, (task, n) in enumerate(zip(tasks, lengths, strict=True)):
            _close(got[row, 0], wanted[task][row % 2, n + step])
