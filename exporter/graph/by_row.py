"""What each row of a batch reads by its task: vectors that its product is multiplied by, or added to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.builder import GraphBuilder


@dataclass(frozen=True)
class Vectors:
    """The vectors of one module, an entry for each task and a last one for rows without an adapter.

    Attributes:
        gain: [T + 1, out], by which the product is multiplied before its bias; None: by ones.
        input_gain: [T + 1, in], by which what the product reads is multiplied; None: by ones.
        shift: [T + 1, out], added to the product; None: nothing is.
        sizes: of each of them, by task id, the width of the task's own vector; 0 for a task without.
    """

    gain: np.ndarray | None = None
    input_gain: np.ndarray | None = None
    shift: np.ndarray | None = None
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.gain, self.input_gain, self.shift))


def across(modules: Iterable[tuple[Site, np.ndarray | None]], neutral: float) -> np.ndarray | None:
    """The vectors [T + 1, N] of a whole product, of its modules' own ones; None if no module has any."""
    whole: np.ndarray | None = None
    for site, own in modules:
        if own is None:
            continue
        if whole is None:
            whole = np.full((len(own), site.packed_width), neutral)
        whole[:, slice(*site.columns)] = own
    return whole


def apply(builder: GraphBuilder, op_type: str, value: ir.Value, like: ir.Value, own: ir.Value) -> ir.Value:
    """Multiplies a value by each row's vector, or adds that to it.

    Args:
        builder: of the graph.
        op_type: "Mul" or "Add".
        value: [batch, ..., width], or with further axes flattened into the first ([batch * length, width]).
        like: the value whose shape it has.
        own: [batch, width].
    """
    rank = len(like.shape) if like.shape is not None else 0
    if rank >= 2 and builder.has_rows(like):
        if rank > 2:
            axes = builder.constant(f"rows.axes_{rank - 2}", np.arange(1, rank - 1))
            own = builder.node("Unsqueeze", [own, axes])[0]
        return builder.node(op_type, [value, own])[0]
    shape = builder.node("Shape", [value])[0]
    rows = _rows(builder, value, own)
    axis = builder.constant("rows.axes_1", np.array([1]))
    changed = builder.node(op_type, [rows, builder.node("Unsqueeze", [own, axis])[0]])[0]
    return builder.node("Reshape", [changed, shape])[0]


def by_token(builder: GraphBuilder, own: ir.Value, like: ir.Value) -> ir.Value:
    """Each row's entry for every position of the row, [batch * positions].

    Args:
        builder: of the graph.
        own: [batch].
        like: [batch, ..., width], or with further axes flattened into the first.
    """
    positions = builder.node("Shape", [_rows(builder, like, own)], start=0, end=2)[0]
    axis = builder.constant("rows.axes_1", np.array([1]))
    each = builder.node("Expand", [builder.node("Unsqueeze", [own, axis])[0], positions])[0]
    return builder.node("Reshape", [each, builder.constant("rows.flat", np.array([-1]))])[0]


def _rows(builder: GraphBuilder, value: ir.Value, own: ir.Value) -> ir.Value:
    """A value [..., width] as [batch, positions, width], with as many rows as `own` [batch, ...]."""
    ends = [builder.constant("rows.flat", np.array([-1])), builder.node("Shape", [value], start=-1)[0]]
    shape = builder.node("Concat", [builder.node("Shape", [own], start=0, end=1)[0], *ends], axis=0)[0]
    return builder.node("Reshape", [value, shape])[0]
