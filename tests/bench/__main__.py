"""Speed, size, export time and memory on all-MiniLM-L6-v2 with the seven-task EPT adapter and the TuckA adapter.

    python -m tests.bench [--pairs 30] [--threads 2] [--json FILE]

Latency is the median of the ratios of interleaved pairs in one process, to the base graph from the same exporter.
Seconds depend on the machine, which is named; ratios should not.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

from eptx._files import list_files
from eptx.errors import BundleError
from tests.bench.export import Exported, export_all
from tests.bench.machine import machine

SHAPES = [(1, 16), (1, 128), (8, 32), (8, 128)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base", type=Path, help="transformers folder of all-MiniLM-L6-v2")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    print(f"{machine()}, Python {platform.python_version()}, {arguments.threads} threads, {arguments.pairs} pairs")
    with tempfile.TemporaryDirectory() as scratch:
        exported = export_all(Path(scratch), arguments.base)
        numbers = {
            "machine": machine(),
            "threads": arguments.threads,
            "pairs": arguments.pairs,
            "export": exported.costs,
            "size": sizes(exported),
            "latency": latencies(exported, arguments.pairs, arguments.threads),
        }
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")


def sizes(exported: Exported) -> dict[str, float]:
    """Bytes of each bundle over those of the base's weights."""
    ratios = {
        name: sum(list_files(path, error=BundleError).values()) / exported.base_bytes
        for name, path in exported.bundles.items()
    }
    print("\nbundle bytes / bytes of the base folder's model and tokenizer")
    for name, ratio in ratios.items():
        print(f"  {name:<22} {ratio:.3f}")
    return ratios


def latencies(exported: Exported, pairs: int, threads: int) -> dict[str, dict[str, Any]]:
    """Latency of each bundle over that of the base graph; tasks are mixed within a batch."""
    from eptx.runtime.timing import compare

    print("\nlatency / base graph (median of paired ratios)")
    print(f"  {'':<22}" + "".join(f"{batch}x{length:<8}" for batch, length in SHAPES))
    table: dict[str, dict[str, Any]] = {}
    for name, path in exported.bundles.items():
        rows = compare(path, exported.base, SHAPES, pairs=pairs, threads=threads)
        table[name] = {row["shape"]: {"ratio": row["ratio"], "milliseconds": row["milliseconds"]} for row in rows}
        print(f"  {name:<22}" + "".join(f"{row['ratio']:<10.3f}" for row in rows), flush=True)
    return table


if __name__ == "__main__":
    main()
