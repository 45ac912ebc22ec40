"""A graph without what made it noted down."""

from __future__ import annotations

import onnx_ir as ir


def clean(model: ir.Model) -> None:
    """Removes what the exporter noted down for debugging: names of files, stack traces."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
