"""Opening a dynamic bundle in plain ONNX Runtime says nothing at its default log level, by functions or by kernels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.bases import load_transformers
from tests.exporter.bases.conftest import build
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_ept, write_lora, write_tucka

_OPEN = "import sys, onnxruntime as ort; ort.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
_SESSION = "import sys, eptx; eptx.Session(sys.argv[1])"
#: What is opened -> the adapter, and the options of its export.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ept": ("ept", {"mode": "dynamic", "top_k": 2}),
    "ept, float16": ("ept", {"mode": "dynamic", "top_k": 2, "precision": "fp16"}),
    "ept, conditioned": ("ept", {"mode": "conditioned", "top_k": 2}),
    "tucka": ("tucka", {"mode": "dynamic"}),
    "tucka, by row": ("tucka", {"mode": "dynamic", "routing": "row"}),
    "tucka, float16": ("tucka", {"mode": "dynamic", "precision": "fp16"}),
    "lora": ("lora", {"mode": "conditioned"}),
    "static": ("ept", {"mode": "static", "task": "x", "top_k": 2}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT, its graph, and an adapter of every method on layers that share inputs."""
    root = tmp_path_factory.mktemp("quiet")
    build("bert").save_pretrained(root / "base")
    ir.save(load_transformers(root / "base", headless=True).model, root / "base.onnx")
    shapes = linear_shapes(root / "base", ("query", "key", "value", "dense"))
    shapes = {name: shape for name, shape in shapes.items() if "encoder" in name}
    add_heads(write_ept(root / "ept", shapes, seed=1, tasks=3, sizes=(2, 3, 5)), {"x": 2, "y": 3, "z": 1}, 24)
    write_tucka(root / "tucka", shapes, seed=2)
    write_lora(root / "lora", shapes, seed=3)
    return root


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_said(made: Path, tmp_path: Path, case: str) -> None:
    adapter, options = CASES[case]
    bundle = export_bundle(
        made / "base", [made / adapter], tmp_path / "b", ExportOptions(base_onnx=made / "base.onnx", **options)
    )
    for program, opened in ((_OPEN, bundle.model), (_SESSION, bundle.path)):
        done = subprocess.run([sys.executable, "-c", program, str(opened)], capture_output=True, text=True, check=True)
        assert done.stdout + done.stderr == ""
