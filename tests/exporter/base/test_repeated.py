"""ALBERT runs one layer many times: its adapter, too, and each time on what is there then."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from eptx.exporter import ExportOptions, export_bundle
from eptx.exporter.validation import ValidateOptions, validate_bundle
from tests.exporter.validation.adapters import linear_shapes, write_ept, write_lora, write_tucka
from tests.trained import by_task, trained_model

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


def test_a_router_that_runs_again_is_exported_wrongly_today(tiny: Any, tmp_path: Path) -> None:
    """The trained router routes in every layer; the graph does in the first alone, and validation says so."""
    folder = tiny.folder("albert")
    ir.save(tiny.graph("albert").model, tmp_path / "base.onnx")
    path = write_tucka(tmp_path / "adapter", linear_shapes(folder, ("query", "ffn")), seed=4, strength=0.4)
    options = ExportOptions(mode="dynamic", routing="row", base_onnx=tmp_path / "base.onnx")
    bundle = export_bundle(folder, [path], tmp_path / "bundle", options)
    report = validate_bundle(bundle.path, ValidateOptions(providers=["cpu"]))
    assert not report.passed
    assert re.search(r"task task0 fails at logits: .* times the noise floor$", report.reason), report.reason
