"""The scan of models in C++ finds what Python's scan finds, and what a protocol-buffer library reads, in any bytes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from eptx.bundle.onnx_scan import scan_bytes
from eptx.errors import BundleError
from tests.eptx.test_onnx_protobuf import comparable
from tests.eptx.wire import as_protobuf_reads, corpus, whole_model
from tests.runtime.cpp.library import program

COUNT = 12_000


def _scanned(models: list[bytes], folder: Path) -> list[Any]:
    """What eptx_scan finds in each model: four lists, or the text of an error."""
    (folder / "models").write_bytes(b"".join(len(model).to_bytes(4, "little") + model for model in models))
    done = subprocess.run([program("eptx_scan"), folder / "models"], capture_output=True, check=True, timeout=300)
    return [json.loads(line) for line in done.stdout.splitlines()]


def _python(model: bytes) -> Any:
    """The four lists, or none where the model is refused."""
    try:
        return _as_json(comparable(scan_bytes(model)))
    except BundleError:
        return None


def _as_json(scan: Any) -> Any:
    return json.loads(json.dumps(scan))


def test_mutated_models(tmp_path: Path) -> None:
    models = [whole_model(), *corpus(COUNT, 3)]
    found = _scanned(models, tmp_path)
    assert len(found) == len(models)
    both = 0
    for model, scan in zip(models, found, strict=True):
        if isinstance(scan, list):
            scan[3] = sorted(scan[3])
        assert (None if isinstance(scan, str) else scan) == _python(model), model.hex()
        if isinstance(scan, str):
            continue
        try:
            wanted = as_protobuf_reads(model)
        except ValueError:
            continue  # nobody can load it
        assert scan == _as_json(comparable(wanted)), model.hex()
        both += 1
    assert both > COUNT / 10
