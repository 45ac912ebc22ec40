"""What a replaced bundle held goes back to the system."""

from __future__ import annotations

import asyncio
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from eptx.runtime import Session
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.metrics import Metrics
from eptx.runtime.serving.models import registry
from eptx.runtime.serving.models.registry import LocalRegistry

#: Frees 200 MB in pieces that glibc keeps, since the last of them is still in use.
_PROGRAM = """
from pathlib import Path
from eptx.runtime.ort.memory import release_memory
def resident(): return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) / 1e3
pieces = [bytes([1]) * 100_000 for _ in range(2000)]
kept = pieces[-1]
del pieces
before = resident()
release_memory()
print(before, resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library keeps no memory")
def test_freed_memory_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert after < before - 150


def test_a_replaced_model_is_given_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(registry, "release_memory", lambda: given.append(1))

    async def replace() -> int:
        models = LocalRegistry({"tiny": folder / "tiny"}, Limits(), Metrics(), partial(Session, threads=1))
        await models.start()
        assert await models.reload("tiny") is None
        while not given:
            await asyncio.sleep(0.01)
        replaced = len(given)
        await models.close()
        return replaced

    assert asyncio.run(asyncio.wait_for(replace(), 10)) == 1
