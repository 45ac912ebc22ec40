"""Latency of every method's bundle over that of the base graph, all in one process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eptx.runtime.machine import machine
from tests.bench import latency
from tests.bench.export import save_base
from tests.bench.glue.methods import Method
from tests.bench.latency import Contender

SHAPE = (8, 32)


def latencies(base: Path, out: Path, methods: Sequence[Method], *, pairs: int, threads: int) -> dict[str, Any]:
    """Of those that are exported, rows of all tasks mixed; and of the base against itself."""
    graph = out / "base.onnx"
    if not graph.exists():
        save_base(base, graph)
    contenders = {"base": Contender(graph)}
    for method in methods:
        for variant in method.variants:
            if (out / method.name / f"{variant.name}.json").exists():
                contenders[f"{method.name} {variant.name}"] = Contender(out / method.name / variant.name)
    found = latency.measure(graph, contenders, pairs=pairs, threads=threads, shapes=[SHAPE])
    latency.show(found)
    shape = "{}x{}".format(*SHAPE)
    rows = {name: by_shape[shape] for name, by_shape in found.items()}
    return {"machine": machine(), "threads": threads, "pairs": pairs, "shape": shape, "methods": rows}
