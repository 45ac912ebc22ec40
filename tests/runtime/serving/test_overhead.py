"""What a run costs beside its tokens, measured on sessions whose cost is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eptx.runtime import Outputs, Session
from eptx.runtime.serving.overhead import run_overhead


class Slow(Session):
    """Answers, and takes as long as it is told for so many tokens."""

    def __init__(self, bundle: Path, seconds: Callable[[int], float]) -> None:
        super().__init__(bundle, threads=1)
        self._seconds = seconds

    def run(self, inputs: Any, task: Any = None) -> Outputs:
        outputs = super().run(inputs, task)
        time.sleep(self._seconds(inputs["input_ids"].size))
        return outputs


@pytest.mark.parametrize(
    ("seconds", "least", "most"),
    [
        (lambda tokens: 0.01 + 0.0002 * tokens, 30, 75),  # 50 tokens' time, and what a sleep is late
        (lambda tokens: 0.0004 * tokens, 8, 12),
        (lambda tokens: 0.02, 1000, 16384),
    ],
)
def test_the_overhead_is_what_no_token_takes(
    folder: Path, seconds: Callable[[int], float], least: int, most: int
) -> None:
    assert least <= run_overhead(Slow(folder / "tiny", seconds)) <= most


@pytest.mark.parametrize("name", ["static", "dynamic", "open"])
def test_every_mode_is_measured(folder: Path, name: str) -> None:
    assert 8 <= run_overhead(Session(folder / name, threads=1)) <= 16384
