"""LoRA of rank 16 at every module, three tasks in one bundle: against what is usual in ONNX, and how large it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eptx.calibration import export_bundle
from eptx.errors import BundleError
from eptx.exporter import ExportOptions
from eptx.files.safe_files import list_files
from tests.bench import latency
from tests.bench.latency import Contender
from tests.bench.multi_lora import RANK, write_multi_lora
from tests.exporter.validation.adapters import WEIGHTS, linear_shapes, write_lora

TASKS = 3
_MODULES = ("query", "key", "value", "dense")


def lora(folder: Path, base: Path, base_bytes: int, *, pairs: int, threads: int) -> dict[str, Any]:
    """Latency of a conditioned bundle over that of the usual graph, rows of its tasks mixed; and its bytes."""
    shapes = {name: s for name, s in linear_shapes(base, _MODULES).items() if name.startswith("encoder.")}
    adapters = [write_lora(folder / f"lora{i}", shapes, seed=i, rank=RANK) for i in range(TASKS)]
    bundle = folder / "lora-conditioned"
    export_bundle(base, adapters, bundle, ExportOptions(mode="conditioned"))
    usual = write_multi_lora(base, folder / "usual_lora.onnx")
    contenders = {
        "usual against itself": Contender(usual),
        f"conditioned, {TASKS} tasks mixed": Contender(bundle),
        "conditioned, one task": Contender(bundle, task_ids=[1]),
        "conditioned, bodies": Contender(bundle, native=False),
    }
    print(f"\nLoRA of rank {RANK} at {len(shapes)} modules: latency / the usual graph's (one adapter for the batch)")
    table = latency.measure(usual, contenders, pairs=pairs, threads=threads, shapes=latency.SHAPES)
    latency.show(table)
    own = sum((adapter / WEIGHTS).stat().st_size for adapter in adapters)
    growth = (sum(list_files(bundle, error=BundleError).values()) - base_bytes) / own
    print(f"  bytes that the bundle has over the base / bytes of the adapters' files: {growth:.3f}")
    return {"latency": table, "growth": growth}
