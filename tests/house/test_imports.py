"""Who may import what, and what runs with nothing but the base install."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import eptx
from tests.support.modules import product
from tests.support.tiny_bundle import write_tiny

HEAVY = {"torch", "transformers", "peft", "optimum", "onnxscript", "onnx", "onnx_ir", "safetensors"}

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked or name in blocked:
            raise ImportError(name + " is blocked")

blocked = set(sys.argv[2].split(","))
sys.meta_path.insert(0, Blocker())
import eptx
for name in ("Bundle", "EptxError", "Outputs", "Session", "read_bundle"):
    getattr(eptx, name)
session = eptx.Session(sys.argv[1])
outputs = session.run({"input_ids": [[2, 5, 3], [2, 6, 3]]}, ["sst2", "mnli"])
print(outputs.labels, [row.shape for row in outputs.logits])
print(session.run(["good film"], "stsb").labels)
"""


def test_a_session_needs_only_the_base_install(tmp_path: Path) -> None:
    bundle = write_tiny(tmp_path / "bundle", tokenizer=True)
    package = Path(eptx.__file__).parent.parent  # type: ignore[arg-type]
    blocked = ",".join([*HEAVY, "eptx.exporter", "eptx.calibration", "click", "matplotlib"])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKED, str(bundle.path), blocked],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={
            **os.environ,
            "PYTHONPATH": f"{package}:{os.environ.get('PYTHONPATH', '')}",
            "PYTHONSAFEPATH": "1",
        },
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 2
    assert done.stderr == ""


def _imported_when_loaded(tree: ast.AST) -> Iterator[str]:
    """What is imported outside of functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imported_when_loaded(node)


def test_the_top_package_loads_nothing_heavy() -> None:
    heavy = tuple(f"{name}." for name in (*HEAVY, "eptx.exporter", "eptx.calibration"))
    top = {path: tree for path, tree in product().items() if path.startswith("eptx/") and path != "eptx/peft.py"}
    assert len(top) > 30
    found = {
        path: name for path, tree in top.items() for name in _imported_when_loaded(tree) if f"{name}.".startswith(heavy)
    }
    assert found == {}


def test_public_names() -> None:
    assert sorted(dir(eptx)) == sorted(eptx.__all__)
    for name in eptx.__all__:
        assert name == "__version__" or getattr(eptx, name).__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = eptx.nothing
