"""What a run costs beside its tokens, measured on sessions whose cost is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eptx.runtime import Outputs, Session
from eptx.runtime.serving.batching.overhead import USUAL, run_overhead
from eptx.runtime.serving.limits import Limits


class Slow(Session):
    """Answers, and takes as long as it is told for so many tokens."""

    def __init__(self, bundle: Path, seconds: Callable[[int], float]) -> None:
        super().__init__(bundle, threads=1)
        self._seconds = seconds

    def run_checked(self, arrays: Any) -> Outputs:
        outputs = super().run_checked(arrays)
        time.sleep(self._seconds(arrays["input_ids"].size))
        return outputs


@pytest.mark.parametrize(
    ("seconds", "least", "most"),
    [
        (lambda tokens: 0.01 + 0.0002 * tokens, 30, 75),  # 50 tokens' time, and what a sleep is late
        (lambda tokens: 0.0004 * tokens, 8, 12),
        (lambda tokens: 0.02, 500, 512),
    ],
)
def test_the_overhead_is_what_no_token_takes(
    folder: Path, seconds: Callable[[int], float], least: int, most: int
) -> None:
    assert least <= run_overhead(Slow(folder / "tiny", seconds), Limits()) <= most


@pytest.mark.parametrize("name", ["static", "dynamic", "open"])
def test_every_mode_is_measured(folder: Path, name: str) -> None:
    assert 8 <= run_overhead(Session(folder / name, threads=1), Limits()) <= 512


def test_a_slow_first_run_is_not_measured(folder: Path) -> None:
    started: list[int] = []

    def seconds(tokens: int) -> float:
        started.append(tokens)
        return 1.1 if len(started) == 1 else 0.0004 * tokens

    assert run_overhead(Slow(folder / "tiny", seconds), Limits()) <= 12


def test_what_the_limits_forbid_is_not_measured(folder: Path) -> None:
    session = Slow(folder / "tiny", lambda tokens: 0.0)
    assert run_overhead(session, Limits(max_batch=1, max_tokens=8)) == USUAL
    assert run_overhead(session, Limits(max_tokens=100)) == USUAL
