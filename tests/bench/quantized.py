"""Quantized conditioned bundles over the fp32 one: latency and bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eptx import ExportOptions, export
from eptx.errors import BundleError
from eptx.exporter.options import Precision
from eptx.files.safe_files import list_files
from tests.bench import latency
from tests.bench.latency import Contender
from tests.support.minilm import EPT

PRECISIONS: tuple[Precision, ...] = ("fp16", "int8", "int4")


def quantized(scratch: Path, base: Path, *, pairs: int, threads: int) -> dict[str, Any]:
    """Exports EPT in every precision that needs no data, and compares with fp32."""
    bundles = {}
    for precision in ("fp32", *PRECISIONS):
        options = ExportOptions(mode="conditioned", precision=precision)
        bundles[precision] = export(base, [EPT], scratch / precision, options).path
    contenders = {name: Contender(bundles[name]) for name in ("fp32", *PRECISIONS)}
    print("\nlatency / conditioned fp32 bundle, seven tasks mixed: median of paired ratios (quartiles)")
    table = latency.measure(bundles["fp32"], contenders, pairs=pairs, threads=threads, shapes=latency.SHAPES)
    latency.show(table)
    sizes = {name: sum(list_files(path, error=BundleError).values()) for name, path in bundles.items()}
    ratios = {name: size / sizes["fp32"] for name, size in sizes.items()}
    print("bytes / fp32  " + "  ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items()))
    return {"latency": table, "bytes": ratios}
