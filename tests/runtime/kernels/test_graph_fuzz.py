"""The program graph_fuzz.cc: graphs drawn at random through the kernels and through the functions they stand for.

`make sanitize` tries a million under sanitizers; this is the same program as `make native` builds it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.runtime.kernels.graph_bodies import write_bodies

PROGRAM = Path(__file__).parents[3] / "build" / "native" / "kernels" / "eptx_graph_fuzz"


@pytest.mark.parametrize("seed", ["11", "12"])
def test_kernels_agree_with_functions(tmp_path: Path, seed: str) -> None:
    if not os.access(PROGRAM, os.X_OK):
        pytest.skip("eptx_graph_fuzz is not built: make native")
    write_bodies(tmp_path)
    done = subprocess.run([PROGRAM, tmp_path, "10000", seed], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"cases of seed {seed}" in done.stdout
