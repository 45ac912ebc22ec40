"""Latency of every method's bundle over that of the base graph, all in one process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eptx.runtime.machine import machine
from tests.bench import latency
from tests.bench.export import save_base
from tests.bench.glue.methods import Method
from tests.bench.latency import Contender

SHAPE = (8, 32)


def latencies(base: Path, out: Path, runs: Mapping[Method, Path], *, pairs: int, threads: int) -> dict[str, Any]:
    """Of what is exported of these trainings, rows of all tasks mixed; and of the base against itself."""
    graph = out / "base.onnx"
    if not graph.exists():
        save_base(base, graph)
    contenders = {"base": Contender(graph)}
    for method, run in runs.items():
        for variant in method.variants:
            if (run / f"{variant.name}.json").exists():
                contenders[f"{method.name} {variant.name}"] = Contender(run / variant.name)
    found = latency.measure(graph, contenders, pairs=pairs, threads=threads, shapes=[SHAPE])
    latency.show(found)
    shape = "{}x{}".format(*SHAPE)
    rows = {name: by_shape[shape] for name, by_shape in found.items()}
    return {"machine": machine(), "threads": threads, "pairs": pairs, "shape": shape, "methods": rows}
