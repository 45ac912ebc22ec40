"""What Python and libeptx say of the same bundle: 0 where it is accepted, else the exit code, which is the status.

Wording is not compared. libeptx reads no section of eptx.json that it does not use: see `UNUSED`.
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

#: What libeptx does not use of eptx.json -> the JSON type that it asks for. Whatever is inside, libeptx takes.
UNUSED: dict[str, type] = {
    **dict.fromkeys(("sources", "fingerprints", "modules", "route", "quantization", "text", "encoder"), dict),
    "method": str,
}


def verdict(call: Callable[[], object]) -> int:
    """How a call ends."""
    try:
        call()
    except EptxError as e:
        return e.exit_code
    except NativeError as e:
        return e.status
    return 0


def mend_unused(bundle: Path, sound: Path) -> bool:
    """Puts sound values where libeptx takes anything of the right type; whether that changes the bundle.

    What Python says of the mended bundle is what libeptx must say of the bundle as it was.
    """
    path = bundle / "eptx.json"
    try:
        value: Any = parse_json(path.read_bytes(), what="eptx.json", error=BundleError)
    except (BundleError, OSError):
        return False
    if not isinstance(value, dict):
        return False
    good = json.loads((sound / "eptx.json").read_text())
    mended = value | {key: good[key] for key, kind in UNUSED.items() if isinstance(value.get(key), kind)}
    if isinstance(value.get("encoder"), dict):
        mended |= _encoder(bundle, mended)
    if mended == value:
        return False
    path.write_bytes(dump_json(mended))
    return True


def _encoder(bundle: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The model itself as an encoder, in a file of its own, and the files with it."""
    shutil.copy(bundle / "model.onnx", bundle / "encoder.onnx")
    tensors = {key: manifest[key] for key in ("inputs", "outputs")}
    files = manifest["files"] | {"encoder.onnx": manifest["files"]["model.onnx"]}
    return {"encoder": {"file": "encoder.onnx", "modules": {}, **tensors}, "files": files}
