"""Where the time of a validation goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Seconds(dict[str, float]):
    """Seconds per stage, in the order in which the stages first ran."""

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Counts what runs inside it, also where it ends in an error."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self[stage] = round(self.get(stage, 0.0) + time.perf_counter() - start, 3)

    @property
    def sentence(self) -> str:
        """One line: all of it, and the stages."""
        return f"{sum(self.values()):.1f} s: " + ", ".join(f"{stage} {took:.1f}" for stage, took in self.items())
