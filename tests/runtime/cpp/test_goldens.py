"""Every golden of the released code through libeptx: logits within 1e-4."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eptx.exporter import ExportOptions, Route
from tests.exporter.goldens.test_goldens import EPT, ORIGINS, TUCKA, Case, case_of  # noqa: F401
from tests.runtime.cpp.library import Session, load

TOLERANCE = 1e-4
CaseOf = Callable[[str], Case]


def _logits(session: Session, case: Case, batch: int, ids: np.ndarray | None) -> np.ndarray:
    feeds = {key: np.asarray(value, np.int64) for key, value in case.feeds(batch).items()}
    if ids is not None:
        feeds["task_id"] = ids.astype(np.int64)
    return session.run(feeds)[0]["logits"]


def _close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= TOLERANCE


@pytest.mark.parametrize("kernels", ["auto", "off"])
@pytest.mark.parametrize("mode", ["conditioned", "dynamic"])
@pytest.mark.parametrize("name", EPT)
def test_ept_by_task_id(case_of: CaseOf, tmp_path: Path, name: str, mode: str, kernels: str) -> None:  # noqa: F811
    load()
    case = case_of(name)
    options = ExportOptions(mode=mode, top_k=case.settings["top_k"])  # type: ignore[arg-type]
    session = Session(case.export(tmp_path / "b", options, "onnx").path, kernels=kernels)
    for batch in case.batches:
        rows = len(case.feeds(batch)["input_ids"])
        wanted = [*(case.arrays[f"out{batch}.task{t}.logits"] for t in range(8)), case.arrays[f"base{batch}.logits"]]
        for task, want in enumerate(wanted):
            _close(_logits(session, case, batch, np.full(rows, task)), want)
        mixed = (np.arange(rows) * 5 + 2) % 9
        _close(_logits(session, case, batch, mixed), np.stack([wanted[t][row] for row, t in enumerate(mixed)]))


@pytest.mark.parametrize("name", EPT)
def test_ept_static(case_of: CaseOf, tmp_path: Path, name: str) -> None:  # noqa: F811
    load()
    case = case_of(name)
    for task in range(8):
        options = ExportOptions(mode="static", top_k=case.settings["top_k"], task=f"task{task}")  # type: ignore[arg-type]
        session = Session(case.export(tmp_path / str(task), options, "onnx").path)
        for batch in case.batches:
            _close(_logits(session, case, batch, None), case.arrays[f"out{batch}.task{task}.logits"])


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("name", TUCKA)
def test_tucka_live(case_of: CaseOf, tmp_path: Path, name: str, origin: str) -> None:  # noqa: F811
    load()
    case = case_of(name)
    session = Session(case.export(tmp_path / "b", ExportOptions(mode="dynamic"), origin).path)
    for batch in case.batches:
        _close(_logits(session, case, batch, None), case.arrays[f"out{batch}.logits"])


@pytest.mark.parametrize("mode", ["static", "conditioned"])
@pytest.mark.parametrize("name", TUCKA)
def test_tucka_by_recorded_route(case_of: CaseOf, tmp_path: Path, name: str, mode: str) -> None:  # noqa: F811
    load()
    case = case_of(name)
    for batch in case.batches:
        weights = tuple(map(float, case.arrays[f"out{batch}.weights"].reshape(-1)))
        routes = {None: Route(int(case.arrays[f"out{batch}.group"].reshape(-1)[0]), weights)}
        bundle = case.export(tmp_path / str(batch), ExportOptions(mode=mode, routes=routes), "onnx")  # type: ignore[arg-type]
        session = Session(bundle.path)
        rows = len(case.feeds(batch)["input_ids"])
        if mode == "static":
            _close(_logits(session, case, batch, None), case.arrays[f"out{batch}.logits"])
            continue
        _close(_logits(session, case, batch, np.zeros(rows)), case.arrays[f"out{batch}.logits"])
        _close(_logits(session, case, batch, np.ones(rows)), case.arrays[f"base{batch}.logits"])
