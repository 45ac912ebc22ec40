"""The ranges of the products' inputs per task, observed in the adapted graph, because an adapter moves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from eptx.bundle import BundleWriter
from eptx.calibration.quantize.layers import key_of
from eptx.calibration.quantize.quantizer import Range
from eptx.errors import NotSupportedError
from eptx.exporter.bases.initializers import add_initializer
from eptx.exporter.bundle.write import Adapted
from eptx.exporter.steps.export import write
from eptx.runtime import Session
from eptx.runtime.measure import Probe, Row
from eptx.runtime.ort.sessions import session_options

_LOW, _HIGH = "eptx_low_", "eptx_high_"


def observe_ranges(
    adapted: Adapted, rows: Mapping[str, Sequence[Row]], folder: Path, threads: int | None
) -> dict[str, dict[str, Range]]:
    """Runs every task's rows and records the smallest and the largest value that each product reads.

    Args:
        adapted: float32 graphs with the adapter; left as they are.
        rows: task -> its rows.
        folder: a new folder for a bundle whose outputs are these values.
        threads: of ONNX Runtime.

    Returns:
        product -> task -> its range.

    Raises:
        NotSupportedError: the model has several graphs, which do not run alone.
    """
    if len(adapted.graphs) > 1:
        raise NotSupportedError("--precision int8-static is for models of one graph; use int8")
    seen = adapted.copy()
    (edited,) = seen.graphs
    names = _show(edited.graph.model.graph, edited.products)
    with BundleWriter(folder) as writer:
        bundle = write(writer, seen)
    # basic: the others replace a value although it is an output now
    settings = session_options(threads, optimization="basic")
    session = Session(bundle, "cpu", verify=False, session_options=settings)
    found: dict[str, dict[str, Range]] = {key_of(edited.graph, name): {} for name in edited.products}
    for task, own in rows.items():
        probe = Probe(session, {task: own})
        lows: dict[str, float] = {}
        highs: dict[str, float] = {}
        for outputs in probe.outputs(session):
            for name, key in names.items():
                lows[key] = min(lows.get(key, 0.0), float(outputs[f"{_LOW}{name}"][0]))
                highs[key] = max(highs.get(key, 0.0), float(outputs[f"{_HIGH}{name}"][0]))
        for key in names.values():
            found[key_of(edited.graph, key)][task] = Range(lows[key], highs[key])
    return found


def union(ranges: Mapping[str, Range]) -> Range:
    """The range that holds the values of every task."""
    return Range(min(r.low for r in ranges.values()), max(r.high for r in ranges.values()))


def _show(graph: ir.Graph, products: Sequence[str]) -> dict[str, str]:
    """Adds outputs [1] for the smallest and largest value of every product's input; output number -> product."""
    nodes = {node.name: node for node in graph}
    for index, name in enumerate(products):
        x = nodes[name].inputs[0]
        for prefix, operator in ((_LOW, "ReduceMin"), (_HIGH, "ReduceMax")):
            reduce = ir.node(operator, [x], {"keepdims": 0})
            shape = ir.node("Unsqueeze", [reduce.outputs[0], _zero(graph)])
            output = shape.outputs[0]
            output.name, output.type, output.shape = f"{prefix}{index}", ir.TensorType(ir.DataType.FLOAT), ir.Shape([1])
            graph.extend([reduce, shape])
            graph.outputs.append(output)
    return {str(index): name for index, name in enumerate(products)}


def _zero(graph: ir.Graph) -> ir.Value:
    name = "eptx_axis_0"
    if name not in graph.initializers:
        add_initializer(graph, name, np.array([0]))
    return graph.initializers[name]
