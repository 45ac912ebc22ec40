"""Graphs in which the rows of a batch are not one after the other."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from eptx.errors import NotSupportedError
from eptx.exporter.bases import BaseGraph, locate
from eptx.exporter.graph.builder import GraphBuilder
from eptx.exporter.graph.row_order import check_row_order

_GRAPH = """
<ir_version: 8, opset_import: ["" : 18]>
g (float[batch, 6, 4] pixel_values) => (float[n, m, k] y)
  <float[4, 4] layer.weight = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7}, int64[3] windows = {-1, 3, 4}>
{
  %s
  y = MatMul (x, layer.weight)
}
"""
_TURNED = "x = Transpose <perm = [1, 0, 2]> (pixel_values)"
_WINDOWS = "x = Reshape (pixel_values, windows)"
_MIXED = """turned = Transpose <perm = [1, 0, 2]> (pixel_values)
  x = Reshape (turned, windows)"""


def _check(steps: str) -> None:
    graph = onnx.parser.parse_model(_GRAPH.replace("layer.weight", "w") % steps)
    model = ir.from_proto(graph)
    model.graph.initializers["w"].name = "layer.weight"
    check_row_order(GraphBuilder(model), locate(BaseGraph(model), ["layer"]))


def test_windows_of_each_row_together_are_taken() -> None:
    _check(_WINDOWS)


@pytest.mark.parametrize("steps", [_TURNED, _MIXED], ids=["positions first", "windows of turned rows"])
def test_mixed_rows_are_refused(steps: str) -> None:
    with pytest.raises(NotSupportedError, match="cannot differ in their task: layer; use --mode static"):
        _check(steps)
