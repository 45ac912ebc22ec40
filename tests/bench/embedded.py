"""A C++ process that serves a bundle through libeptx, against one that serves the base through ONNX Runtime alone."""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path

PROGRAMS = Path(__file__).resolve().parents[2] / "build" / "native" / "bench"
_STARTS = 15
_RUNS = 20


def embedded(base: Path, bundles: dict[str, Path], *, threads: int) -> dict[str, dict[str, float]]:
    """Bundle -> ratios to the base: time from the start to the first answer, and resident memory after some runs.

    Fresh processes take turns; each number is the median of the ratios of neighbours.
    """
    if not (PROGRAMS / "bench_bundle").is_file():
        print("\nC++: not measured, since libeptx was not built (make native)")
        return {}
    print(f"\nC++ process, 8x32, {_STARTS} starts: bundle through libeptx / base through ONNX Runtime's C API")
    table = {}
    for name, bundle in bundles.items():
        pairs = [
            (_start("bench_bundle", bundle, threads), _start("bench_plain", base, threads)) for _ in range(_STARTS)
        ]
        table[name] = {key: statistics.median(ours[key] / plain[key] for ours, plain in pairs) for key in pairs[0][0]}
        own = {key: statistics.median(ours[key] for ours, _ in pairs) for key in pairs[0][0]}
        print(
            f"  {name:<22} first answer {table[name]['first']:.3f} ({own['first']:.0f} ms)   "
            f"resident {table[name]['resident']:.3f} ({own['resident'] / 1e3:.0f} MB)",
            flush=True,
        )
    return table


def _start(program: str, model: Path, threads: int) -> dict[str, float]:
    command = [str(PROGRAMS / program), str(model), str(threads), str(_RUNS)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result
