"""Speed, size, export time and memory on all-MiniLM-L6-v2 with the seven-task EPT adapter and the TuckA adapter.

    python -m tests.bench [--only latency tasks] [--pairs 30] [--threads 2] [--json FILE]

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

from eptx.errors import BundleError
from eptx.files.safe_files import list_files
from eptx.runtime import kernel_library
from eptx.runtime.machine import machine
from tests.bench import latency
from tests.bench.embedded import embedded
from tests.bench.export import Exported, export_all
from tests.bench.latency import Contender
from tests.bench.lora import lora
from tests.bench.many_tasks import many_tasks
from tests.bench.moe_lora import moe_lora
from tests.bench.multi_lora import write_multi_lora
from tests.bench.quantized import quantized
from tests.support.minilm import minilm

PARTS = ("size", "latency", "lora", "moe", "tasks", "cpp", "quantized")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base", type=Path, help="transformers folder of all-MiniLM-L6-v2")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    kernels = "with" if kernel_library() else "WITHOUT"
    print(f"{machine()}, Python {platform.python_version()}, {arguments.threads} threads, {kernels} native kernels")
    base = arguments.base or minilm()
    with tempfile.TemporaryDirectory() as scratch:
        exported = export_all(Path(scratch), base)
        numbers = {
            "machine": machine(),
            "threads": arguments.threads,
            "pairs": arguments.pairs,
            "export": exported.costs,
            **_parts(arguments, exported, Path(scratch), base),
        }
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")


def _parts(arguments: argparse.Namespace, exported: Exported, scratch: Path, base: Path) -> dict[str, Any]:
    pairs, threads = arguments.pairs, arguments.threads
    numbers: dict[str, Any] = {}
    if "size" in arguments.only:
        numbers["size"] = sizes(exported)
    if "latency" in arguments.only:
        numbers["latency"] = latencies(exported, scratch, base, pairs=pairs, threads=threads)
    if "lora" in arguments.only:
        numbers["lora"] = lora(scratch, base, exported.base_bytes, pairs=pairs, threads=threads)
    if "moe" in arguments.only:
        numbers["moe"] = moe_lora(scratch, base, exported.base, pairs=pairs, threads=threads)
    if "tasks" in arguments.only:
        numbers["tasks"] = many_tasks(scratch, base, exported.base, pairs=pairs, threads=threads)
    if "cpp" in arguments.only:
        served = {name: exported.bundles[name] for name in ("ept conditioned", "ept dynamic")}
        numbers["cpp"] = embedded(exported.base, served, threads=threads)
    if "quantized" in arguments.only:
        numbers["quantized"] = quantized(scratch, base, pairs=pairs, threads=threads)
    return numbers


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


def latencies(exported: Exported, scratch: Path, base: Path, *, pairs: int, threads: int) -> dict[str, Any]:
    """Latency of each mode over that of the base graph; with kernels, with function bodies, and of LoRA as usual."""
    bundles = exported.bundles
    contenders = {
        "base against itself": Contender(exported.base),
        "ept static": Contender(bundles["ept static"]),
        "ept conditioned, mixed": Contender(bundles["ept conditioned"]),
        "ept conditioned, one task": Contender(bundles["ept conditioned"], task_ids=[1]),
        "ept dynamic": Contender(bundles["ept dynamic"]),
        "tucka dynamic": Contender(bundles["tucka dynamic"]),
        "usual LoRA, one adapter": Contender(write_multi_lora(base, scratch / "multi_lora.onnx")),
        "ept conditioned, bodies": Contender(bundles["ept conditioned"], native=False),
        "ept dynamic, bodies": Contender(bundles["ept dynamic"], native=False),
        "tucka dynamic, bodies": Contender(bundles["tucka dynamic"], native=False),
    }
    print("\nlatency / base graph: median of paired ratios (quartiles)")
    table = latency.measure(exported.base, contenders, pairs=pairs, threads=threads, shapes=latency.SHAPES)
    latency.show(table)
    return table


if __name__ == "__main__":
    main()
