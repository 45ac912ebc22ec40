"""Where the machine runs out of something, the status is a limit (6), not a bad bundle (3) or an eptx error (1)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.runtime.cpp.library import Environment, NativeError, Session, load
from tests.support.tiny_bundle import write_tiny

ROOT = Path(__file__).parents[3]
#: resource -> words that a message must have
SCARCE = {
    "files": "Too many open files",
    "threads": "a pool of 8 threads cannot be started: Resource temporarily unavailable",
    "shared_threads": "a pool of 8 threads cannot be started: Resource temporarily unavailable",
    "memory": "not enough memory",
}


@pytest.fixture(scope="module")
def bundle() -> Iterator[Path]:
    load()
    with TemporaryDirectory(prefix="eptx-starved-") as folder:  # where also a user without rights gets in
        os.chmod(folder, 0o755)
        yield write_tiny(Path(folder) / "bundle").path


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's")
@pytest.mark.parametrize("what", SCARCE)
def test_too_little(bundle: Path, what: str) -> None:
    command = [sys.executable, "-m", "tests.runtime.cpp.starved", what, str(bundle)]
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT, env=alone)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
    assert {status for _, status, _ in lines} == {"0", "6"}, done.stdout
    assert any(SCARCE[what] in text for _, status, text in lines if status == "6"), done.stdout


def test_more_threads_than_a_pool_has(bundle: Path) -> None:
    for opens in (lambda: Session(bundle, threads=2**31 - 1), lambda: Environment(2**31 - 1)):
        with pytest.raises(NativeError, match="threads must be at most 4096, not 2147483647") as e:
            opens()
        assert e.value.status == 2
