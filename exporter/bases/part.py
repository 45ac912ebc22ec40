"""A part of a graph that runs: up to some of its values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from eptx.runtime.ort.sessions import open_session


def open_part(model: ir.Model, names: Sequence[str]) -> Any:
    """A session of ONNX Runtime that computes these values; it takes those of the graph's inputs that they need.

    Raises:
        Exception: whatever a graph that somebody else wrote provokes.
    """
    part = ir.convenience.extract(model.graph, inputs=list(model.graph.inputs), outputs=list(names))
    for value in part.initializers.values():
        assert value.const_value is not None
        value.const_value = ir.Tensor(value.const_value.numpy().copy(), name=value.name)  # it may be in a file
    cut = ir.Model(part, ir_version=model.ir_version, functions=list(model.functions.values()))
    return open_session(ir.to_proto(cut).SerializeToString())
