"""Writes the functions of every operator, each as the tail of a model: ``python -m tests.runtime.kernels.graph_bodies
FOLDER``, for graph_fuzz.cc."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxscript

from eptx.exporter import ops

OPSET = 20
DELTAS = (ops.LowRankDelta, ops.PyramidDelta, ops.RoutedPyramidDelta, ops.TuckerDelta)
DELTAS += (ops.TokenMixtureDelta, ops.PooledMixtureDelta)
ROUTERS = (ops.PyramidRouter, ops.TuckerRouter)
CHOSEN = (ops.TopExperts, ops.ChosenExpertsDelta, ops.ChosenExpertsMean, ops.ChosenExpertsSum)


def write_bodies(folder: Path) -> None:
    """One file for each operator, of its name: a model that holds nothing but functions."""
    folder.mkdir(parents=True, exist_ok=True)
    for functions in _all():
        graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="empty")
        model = ir.Model(graph, ir_version=10)
        ops.add_functions(model, functions)
        only = onnx.ModelProto(functions=ir.to_proto(model).functions)
        (folder / functions[-1].name).write_bytes(only.SerializeToString())


def _all() -> Iterator[list[ir.Function]]:
    """Each operator's function, last, and those that it calls."""
    for alone in (*ROUTERS, *CHOSEN):
        yield ops.single(alone)
    for delta in DELTAS:
        for count in range(1, ops.MAX_GROUP + 1):
            # fresh each time: a function belongs to one model
            for packed in (False, True):
                yield _form(delta, count, packed=packed)
                functions = _form(delta, count, packed=packed)
                yield [*functions, ops.biased(functions[-1], 1 if packed else count)]


def _form(delta: onnxscript.OnnxFunction, count: int, *, packed: bool) -> list[ir.Function]:
    function, *called = ops.single(delta)
    functions = [*called, function]
    if packed:
        return [*functions, ops.packed(delta, count)]
    return functions if count == 1 else [*functions, ops.grouped(delta, count)]


if __name__ == "__main__":
    write_bodies(Path(sys.argv[1]))
