"""Putting nodes in the place of one."""

from __future__ import annotations

import onnx_ir as ir


def replace_node(graph: ir.Graph, node: ir.Node, new: list[ir.Node]) -> None:
    """Replaces a node by others, of which the last gives its output."""
    y, output = node.outputs[0], new[-1].outputs[0]
    name = y.name
    ir.convenience.replace_nodes_and_values(graph, node, [node], new, [y], [output])
    output.name, output.type, output.shape = name, y.type, y.shape
