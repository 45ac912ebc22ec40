"""How long the stages of a validation take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageTimes(dict[str, float]):
    """Seconds per stage, in the order in which the stages first ran."""

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Adds the time of what runs inside it, also if that fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self[stage] = round(self.get(stage, 0.0) + time.perf_counter() - start, 3)

    @property
    def sentence(self) -> str:
        """One line: the sum, and the stages."""
        return f"{sum(self.values()):.1f} s: " + ", ".join(f"{stage} {took:.1f}" for stage, took in self.items())
