"""A large batch's memory goes back to the system when the batch is done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.cpp import library
from tests.support.tiny_bundle import write_tiny

_SCRIPT = """
import sys
import numpy as np

def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096 >> 20

if sys.argv[2] == "python":
    import eptx
    session = eptx.Session(sys.argv[1], threads=1)
    run = lambda ids: session.run({"input_ids": ids}, "sst2")
else:
    from tests.runtime.cpp import library
    session = library.Session(sys.argv[1], threads=1)
    run = lambda ids: session.run({"input_ids": ids}, "sst2")

ids = np.full((125_000, 16), 2, np.int64)
run(ids[:1, :10])
before = resident()
for _ in range(2):
    run(ids)
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["python", "libeptx"])
def test_a_large_batch_gives_its_memory_back(tmp_path: Path, kind: str) -> None:
    if kind == "libeptx":
        library.load()
    bundle = write_tiny(tmp_path / "bundle")
    command = [sys.executable, "-c", _SCRIPT, str(bundle.path), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert int(done.stdout) < 130, "MB more than before: four tensors of the batch have 32 each"
