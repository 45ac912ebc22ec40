"""What it costs that a large batch gives its memory back at its end, and what stays without it.

    python -m tests.bench.give_back BUNDLE

The two ways take turns on one session; times are medians of paired ratios. BUNDLE is an encoder with a task ``sst2``.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import numpy as np

import eptx
from eptx.runtime.ort.model import give_back_options

SHAPES = {(32, 128): 20, (8, 512): 20, (32, 256): 10}


def main(bundle: str) -> None:
    """Prints a line for each shape, then the resident memory."""
    session = eptx.Session(bundle, threads=2)
    model = session._model.open()
    for (rows, length), pairs in SHAPES.items():
        arrays = session.check({"input_ids": np.full((rows, length), 2000)}, "sst2")
        _seconds(model, arrays, give_back=False)
        ratios = [
            _seconds(model, arrays, give_back=True) / _seconds(model, arrays, give_back=False) for _ in range(pairs)
        ]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{rows}x{length}: with / without {middle:.3f} ({low:.3f}-{high:.3f})", flush=True)
    arrays = session.check({"input_ids": np.full((32, 500), 2000)}, "sst2")
    for give_back in (True, False):
        _seconds(model, arrays, give_back=give_back)
        print(f"resident after 32x500 {'with' if give_back else 'without'}: {_resident()} MB")


def _seconds(model: Any, arrays: dict[str, Any], *, give_back: bool) -> float:
    begin = time.perf_counter()
    model.run(None, arrays, give_back_options() if give_back else None)
    return time.perf_counter() - begin


def _resident() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096 // 1_000_000


if __name__ == "__main__":
    main(sys.argv[1])
