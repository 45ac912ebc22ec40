"""Verdicts of Python and libeptx on the same bundle: 0, or Python's exit code, which is libeptx's status.

Tests do not compare words. libeptx does not read sections of eptx.json that it does not use: see `UNUSED`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eptx.errors import BundleError, EptxError
from eptx.files.strict_json import dump_json, parse_json
from tests.runtime.cpp.library import NativeError

#: Sections of eptx.json that libeptx does not use: it checks that they are objects, and accepts any content.
UNUSED = ("sources", "fingerprints", "route", "quantization", "text", "image", "embedding")


def verdict(call: Callable[[], object]) -> int:
    """The exit code or status that a call ends with."""
    try:
        call()
    except EptxError as e:
        return e.exit_code
    except NativeError as e:
        return e.status
    return 0


def mend_unused(bundle: Path, sound: Path) -> bool:
    """Gives unused sections that are objects a sound value; returns whether that changes the bundle.

    Python's verdict on the mended bundle must be libeptx's verdict on the damaged one.
    """
    path = bundle / "eptx.json"
    try:
        value: Any = parse_json(path.read_bytes(), what="eptx.json", error=BundleError)
    except (BundleError, OSError):
        return False
    if not isinstance(value, dict):
        return False
    good = json.loads((sound / "eptx.json").read_text())
    mended = value | {key: good[key] for key in UNUSED if isinstance(value.get(key), dict)}
    if isinstance(value.get("encoder"), dict):
        mended |= _encoder(bundle, mended)
    if mended == value:
        return False
    path.write_bytes(dump_json(mended))
    return True


def _encoder(bundle: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """A sound encoder, which is a copy of the model, and the list of files with it."""
    shutil.copy(bundle / "model.onnx", bundle / "encoder.onnx")
    tensors = {key: manifest[key] for key in ("inputs", "outputs")}
    files = manifest["files"] | {"encoder.onnx": manifest["files"]["model.onnx"]}
    return {"encoder": {"file": "encoder.onnx", "modules": {}, **tensors}, "files": files}
