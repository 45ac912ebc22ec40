"""A thousand tasks against eight: what more tasks cost in time and memory, and what switching between them costs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.runtime.timing import TimedModel, paired
from tests.exporter.validation.adapters import linear_shapes, write_ept

FEW, MANY = 8, 1000
SHAPE = (8, 32)
MODULES = ("query", "key", "value", "dense")
_STARTS = 7

#: Resident memory of a fresh process that has answered for every task of a bundle.
_CHILD = """
import gc, json, sys
import numpy as np
from eptx import Session

session = Session(sys.argv[1], threads=1)
tasks = np.array([task.id for task in session.manifest.tasks])
for start in range(0, len(tasks), 8):
    ids = np.full((len(tasks[start:start + 8]), 16), 7)
    session.run({'input_ids': ids, 'task_id': tasks[start:start + 8]})
gc.collect()
line = next(line for line in open('/proc/self/status') if line.startswith('VmRSS'))
print(json.dumps(int(line.split()[1]) * 1024))
"""


def many_tasks(folder: Path, base: Path, onnx: Path, *, pairs: int, threads: int) -> dict[str, Any]:
    """Measures a synthetic EPT adapter of 8 and of 1000 tasks, conditioned, on the same base."""
    shapes = {name: s for name, s in linear_shapes(base, MODULES).items() if name.startswith("encoder.")}
    bundles = {count: _export(folder, base, onnx, shapes, count) for count in (FEW, MANY)}
    few, many = (TimedModel(bundles[count], threads=threads) for count in (FEW, MANY))
    rng = np.random.default_rng(0)
    few_feeds, many_feeds = few.feeds(*SHAPE), many.feeds(*SHAPE)

    def any_tasks() -> float:
        return many.run({**many_feeds, "task_id": rng.integers(0, MANY, SHAPE[0])})

    throughput = 1 / paired(any_tasks, lambda: few.run(few_feeds), pairs)["ratio"]
    same = {**many_feeds, "task_id": np.full(SHAPE[0], 3)}
    turns = iter(range(10**9))

    def switching() -> float:
        return many.run({**many_feeds, "task_id": np.full(SHAPE[0], next(turns) * 37 % MANY)})

    switch = paired(switching, lambda: many.run(same), pairs)["ratio"]
    tables = {count: _table_bytes(bundles[count]) for count in (FEW, MANY)}
    resident = _resident(bundles)
    hundreds = (MANY - FEW) / 100
    result = {
        "throughput": throughput,
        "switching": switch,
        "table_bytes_per_100": (tables[MANY] - tables[FEW]) / hundreds,
        "resident_bytes_per_100": (resident[MANY] - resident[FEW]) / hundreds,
    }
    print(f"\n{MANY} tasks against {FEW}, {SHAPE[0]}x{SHAPE[1]}")
    print(f"  throughput {throughput:.3f}; another task in every call against the same {switch:.3f}")
    print(
        f"  each 100 tasks: {result['table_bytes_per_100'] / 1e3:.1f} kB of tables, "
        f"{result['resident_bytes_per_100'] / 1e3:.1f} kB of resident memory",
        flush=True,
    )
    return result


def _export(folder: Path, base: Path, onnx: Path, shapes: dict[str, tuple[int, int]], tasks: int) -> Path:
    adapter = write_ept(folder / f"adapter-{tasks}", shapes, seed=0, tasks=tasks, rank=16)
    options = ExportOptions(mode="conditioned", top_k=2, base_onnx=onnx)
    return export_bundle(base, [adapter], folder / f"bundle-{tasks}", options).path


def _table_bytes(bundle: Path) -> int:
    """What a task's routes take in the model: the tables of all modules."""
    initializers = ir.load(bundle / "model.onnx").graph.initializers.values()
    tables = [v for v in initializers if v.name is not None and v.name.endswith(("task_experts", "task_weights"))]
    return sum(value.const_value.nbytes for value in tables if value.const_value is not None)


def _resident(bundles: dict[int, Path]) -> dict[int, float]:
    """Median over fresh processes, which take turns."""
    seen: dict[int, list[int]] = {count: [] for count in bundles}
    for _ in range(_STARTS):
        for count, bundle in bundles.items():
            command = [sys.executable, "-c", _CHILD, str(bundle)]
            seen[count].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return {count: statistics.median(values) for count, values in seen.items()}
