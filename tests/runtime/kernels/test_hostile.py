"""Nodes made to crash a kernel, in a process of their own: a crash fails the test.

The functions that stand for the kernels get them too, as eptx.Session falls back to those: what they do with such a
node is up to ONNX Runtime, but the process must go on.
"""

from __future__ import annotations

import subprocess
import sys

from tests.runtime.kernels.hostile import CASES
from tests.runtime.kernels.operators import library


def _run(how: str) -> list[list[str]]:
    command = [sys.executable, "-m", "tests.runtime.kernels.hostile", how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{done.returncode} after {done.stdout}\n{done.stderr[-500:]}"
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_kernels() -> None:
    library()
    lines = _run("kernels")
    assert len(lines) == 2 * len(CASES) - 1
    for name, verdict, *text in lines:
        example, said = CASES[name]
        assert verdict == "refused", name
        assert f"{example.name}: " in text[0], name
        assert said in text[0], name


def test_functions() -> None:
    assert {line[0] for line in _run("functions")} == {name for name in CASES if name != "a core that wraps"}
