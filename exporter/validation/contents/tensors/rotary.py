"""Rotary tables, compared with the model's own rotary module at every position of the context.

A run of n tokens reads n rows; wrong or missing rows behind them show only in longer runs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch

from eptx.exporter.validation.base.windows import context
from eptx.exporter.validation.contents.tensors.graph_tensors import live_nodes
from eptx.runtime.validation.check import Check

Which = Literal["cosine", "sine"]

#: Operator -> the indices of its inputs with cosines and sines.
_INPUTS = {"GroupQueryAttention": (7, 8), "RotaryEmbedding": (2, 3), "PagedAttention": (7, 8)}
#: Tolerances: of an angle, which is position times frequency; of its cosine and scale; of float16.
_ANGLE, _VALUE, _HALF = 2.0**-22, 2.0**-20, 2.0**-11


@dataclass(frozen=True)
class _Table:
    """One table [positions, width] of a graph."""

    name: str
    which: Which
    rows: np.ndarray


def compare_rotary(base: Any, graph: ir.Graph) -> list[Check]:
    """A check for every rotary table of a graph.

    Args:
        base: the transformers model.
        graph: the one that generates, or the only one.
    """
    modules = [copy.deepcopy(module) for module in base.modules() if hasattr(module, "inv_freq")]
    if not modules:
        return []
    tables = list(_tables(graph))
    if not tables:
        return [Check("rotary positions", "run", why="the graph computes them, at every position alike")]
    positions = context(base.config)
    assert positions is not None
    checks = []
    for table in tables:
        wrongs = [_wrong(table, module, positions) for module in modules]
        checks.append(Check(f"rotary table {table.name}", "compared", None if None in wrongs else wrongs[0]))
    return checks


def _tables(graph: ir.Graph) -> Iterator[_Table]:
    known: set[ir.Value] = set()
    live = live_nodes(graph)
    for node in (node for node in graph if node in live and node.op_type in _INPUTS):
        for index, which in zip(_INPUTS[node.op_type], ("cosine", "sine"), strict=True):
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is None or value in known or not value.name:
                continue
            known.add(value)
            for array in _arrays(value):
                yield _Table(value.name, which, array)  # type: ignore[arg-type]


def _arrays(value: ir.Value) -> Iterator[np.ndarray]:
    """The arrays of a table: several, if the graph chooses one by the length."""
    if value.const_value is not None:
        yield value.const_value.numpy()
        return
    maker = value.producer()
    if maker is None:
        return
    if maker.op_type == "Constant" and "value" in maker.attributes:
        yield maker.attributes["value"].as_tensor().numpy()
    elif maker.op_type in ("Cast", "Identity") and maker.inputs[0] is not None:
        yield from _arrays(maker.inputs[0])
    elif maker.op_type == "If":
        place = maker.outputs.index(value)
        for attribute in maker.attributes.values():
            yield from _arrays(attribute.as_graph().outputs[place])


def _wrong(table: _Table, module: Any, positions: int) -> str | None:
    """How a table differs from that of a rotary module; None if it does not."""
    if len(table.rows) < positions:
        return f"holds {len(table.rows)} of {positions} positions"
    count = min(len(table.rows), positions)
    expected = _expected(module, table.which, count)
    if table.rows.shape[1:] != expected.shape[1:]:
        return f"is {table.rows.shape[1]} wide, the model's is {expected.shape[1]} wide"
    found = table.rows[:count].astype(np.float64)
    scale = float(np.abs(expected).max())
    half = _HALF if table.rows.dtype == np.float16 else 0.0
    allowed = scale * (_ANGLE * np.arange(count)[:, None] + _VALUE + half)
    off = np.abs(found - expected)
    rows = np.flatnonzero(~(off <= allowed).all(1))
    if not len(rows):
        return None
    which = f"position {rows[0]}" if len(rows) == 1 else f"{len(rows)} of {count} positions, from {rows[0]} on"
    return f"differs from the model's {table.which}s at {which} (by up to {float(np.nanmax(off)):.3g})"


def _expected(module: Any, which: Which, count: int) -> np.ndarray:
    """The model's own table of the positions of a text of that length, float32 [count, frequencies]."""
    with torch.no_grad():
        found = module(torch.zeros(1, 1, 1), torch.arange(count)[None])
    table = found[which == "sine"][0].double().numpy()
    width = len(module.inv_freq)
    halves = np.array_equal(table[:, :width], table[:, width:])
    return np.ascontiguousarray(table[:, :width] if halves else table[:, ::2])
