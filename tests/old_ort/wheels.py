"""Old releases of ONNX Runtime, each in a virtual environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

#: The first patch of each release.
PATCHES = {
    **{f"1.{minor}": f"1.{minor}.0" for minor in range(15, 32)},
    "1.24": "1.24.1",
    "1.25": "1.25.0",
    "1.31": "1.31.1",
}
_BESIDE = ("flatbuffers", "coloredlogs", "humanfriendly", "packaging", "protobuf", "sympy", "mpmath")


class Missing(Exception):
    """There is no wheel of a release for a Python."""


def environment(release: str, place: Path, python: str) -> Path:
    """The Python of an environment with the release; made where it is missing.

    Raises:
        Missing: the registry has no wheel for this Python.
    """
    folder = place / release
    own = folder / "bin" / "python"
    if (folder / ".ready").exists():
        return own
    subprocess.run([python, "-m", "venv", "--clear", "--without-pip", str(folder)], check=True)
    wanted = [f"onnxruntime=={PATCHES[release]}", "numpy<2.4" if int(release.split(".")[1]) > 19 else "numpy<2"]
    command = [sys.executable, "-m", "pip", "--python", str(own), "install", "--quiet", "--no-deps", *wanted, *_BESIDE]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Missing(next((line for line in done.stderr.splitlines() if "ERROR" in line), done.stderr))
    (folder / ".ready").touch()
    return own


def said(python: Path, script: str, *arguments: Path) -> Any:
    """What a script beside this file says, in an environment."""
    command = [str(python), str(Path(__file__).with_name(script)), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
