"""The program simd_test.cc: the arithmetic of every instruction set against sums in double precision."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BUILD = HERE.parents[2] / "build"
PROGRAMS = sorted(path for path in BUILD.glob("*/kernels/eptx_simd_test") if os.access(path, os.X_OK))
HIGHWAY = [BUILD / "deps/usr/include", Path("/usr/include"), Path("/usr/local/include")]


def _run(command: list[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_instruction_set() -> None:
    """Every build that is there, one with sanitizers too."""
    if not PROGRAMS:
        pytest.skip("eptx_simd_test is not built: make native")
    for program in PROGRAMS:
        print(f"{program}\n{_run([program])}")


def test_neon(tmp_path: Path) -> None:
    headers = next((folder for folder in HIGHWAY if (folder / "hwy" / "highway.h").is_file()), None)
    if headers is None:
        pytest.skip("there are no headers of Highway: make native")
    if not shutil.which("aarch64-linux-gnu-g++") or not (
        shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    ):
        pytest.skip("there is no compiler for ARM64 (g++-aarch64-linux-gnu) or no qemu (qemu-user)")
    assert "NEON" in _run(["sh", HERE / "neon.sh", headers, tmp_path])
