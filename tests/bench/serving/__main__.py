"""A server under load, on all-MiniLM-L6-v2 with the seven-task EPT adapter.

    python -m tests.bench.serving [--only load soak] [--threads 2] [--seconds 5] [--requests 100000] [--json FILE]

``load`` compares runs of mixed tasks with one task a run and one row a run; ``soak``
sends many requests, good and bad, and watches answers and memory. Ratios count; the machine is named.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

from eptx import ExportOptions, export
from eptx.exporter.options import Precision
from eptx.runtime import kernel_library
from eptx.runtime.machine import machine
from tests.bench.serving import load, soak
from tests.bench.serving.workload import glue, short
from tests.support.minilm import EPT, minilm

PARTS = ("load", "soak")
WORKLOADS = {"GLUE rows": glue, "8 tokens": short}
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each step of the load")
    parser.add_argument("--requests", type=int, default=100_000, help="of the soak")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    kernels = "with" if kernel_library() else "WITHOUT"
    print(f"{machine()}, Python {platform.python_version()}, {arguments.threads} threads, {kernels} native kernels")
    numbers: dict[str, Any] = {"machine": machine(), "threads": arguments.threads}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for precision in arguments.precision:
            options = ExportOptions(mode="conditioned", precision=precision)
            bundle = export(minilm(), [EPT], folder / precision, options).path
            if "load" in arguments.only:
                numbers[precision] = _loads(bundle, precision, folder, arguments)
            if "soak" in arguments.only and precision == "fp32":
                numbers["soak"] = soak.measure(bundle, folder, arguments.requests, threads=arguments.threads)
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")


def _loads(bundle: Path, precision: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    numbers = {}
    for name, rows in WORKLOADS.items():
        print(f"\n{precision}, {name}, seven tasks evenly, one row a request")
        numbers[name] = load.measure(bundle, rows(), folder, threads=arguments.threads, seconds=arguments.seconds)
    return numbers


if __name__ == "__main__":
    main()
