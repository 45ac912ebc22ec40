"""Exporting what the bench measures, each in a process of its own so that its peak memory can be read."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from eptx.exporter.bases import load_transformers
from eptx.exporter.bundle.clean import clean
from tests.support.minilm import EPT, TINY, TUCKA, minilm


@dataclass(frozen=True)
class Exported:
    """The base graph, the bundles, and what exporting them cost.

    Attributes:
        base: the base as an .onnx file.
        base_bytes: of the base folder's weights and tokenizer.
        bundles: name -> folder.
        costs: name -> seconds and memory of its export.
    """

    base: Path
    base_bytes: int
    bundles: dict[str, Path]
    costs: dict[str, dict[str, float]]


#: One export in a fresh process: seconds, and how far memory grows past the code and a first, tiny export.
_CHILD = """
import json, sys, tempfile, time
from pathlib import Path
from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions

def memory(key):
    return next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith(key))

tiny, base, adapter, out, options, onnx = sys.argv[1:]
settings = ExportOptions(base_onnx=Path(onnx) if onnx else None, **json.loads(options))
with tempfile.TemporaryDirectory() as scratch:
    first = ExportOptions(mode='conditioned', top_k=2)
    export_bundle(Path(tiny, 'base'), [Path(tiny, 'adapter')], Path(scratch, 'first'), first)
before = memory('VmRSS')
start = time.perf_counter()
export_bundle(Path(base), [Path(adapter)], Path(out), settings)
print(json.dumps({'seconds': time.perf_counter() - start, 'bytes': memory('VmHWM') - before}))
"""


def export_all(folder: Path, base: Path | None) -> Exported:
    """Exports every bundle of the bench: each mode from the transformers folder, one from an .onnx file."""
    base = base or minilm()
    onnx = folder / "base.onnx"
    save_base(base, onnx)
    weights = (base / "model.safetensors").stat().st_size
    bundles, costs = {}, {}
    print(f"\nexport: seconds, and growth of peak memory / {weights / 1e6:.0f} MB of weights")
    for name, adapter, options, source in (
        ("ept static", EPT, {"mode": "static", "task": "mrpc"}, ""),
        ("ept conditioned", EPT, {"mode": "conditioned"}, ""),
        ("ept dynamic", EPT, {"mode": "dynamic"}, ""),
        ("ept from onnx file", EPT, {"mode": "conditioned"}, str(onnx)),
        ("tucka dynamic", TUCKA, {"mode": "dynamic"}, ""),
    ):
        out = folder / name.replace(" ", "-")
        costs[name] = _export(base, adapter, out, options, source)
        costs[name]["memory_ratio"] = costs[name]["bytes"] / weights
        print(f"  {name:<22} {costs[name]['seconds']:6.1f} s   {costs[name]['memory_ratio']:.2f}", flush=True)
        bundles[name] = out
    return Exported(onnx, base_bytes(base), bundles, costs)


def save_base(base: Path, file: Path) -> None:
    """Writes the base's own graph, with its weights beside it."""
    graph = load_transformers(base, headless=True).model
    clean(graph)
    ir.save(graph, file, external_data=f"{file.name}.data")


def base_bytes(base: Path) -> int:
    """Bytes of the base folder's weights and tokenizer."""
    companions = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "config.json")
    held = [base / name for name in ("model.safetensors", *companions)]
    return sum(path.stat().st_size for path in held if path.exists())


def _export(base: Path, adapter: Path, out: Path, options: dict[str, str], onnx: str) -> dict[str, float]:
    arguments = [str(TINY), str(base), str(adapter), str(out), json.dumps(options), onnx]
    done = subprocess.run([sys.executable, "-c", _CHILD, *arguments], check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result
