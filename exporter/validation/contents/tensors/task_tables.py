"""Embeddings that tasks change: every row of every task's table, as the bundle's graph looks it up.

A run shows the rows of its tokens alone. So the nodes between the ids and the rows are computed here, for all ids, by
their definitions; how the graph stores what tasks differ in does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Any

import numpy as np
import onnx_ir as ir

from eptx.manifest.names import TASK_ID
from eptx.runtime.validation.check import Check

#: A task's id -> table -> its rows, float32 [rows, width].
Tables = Mapping[int, Mapping[str, np.ndarray]]
#: Of the largest number of a table: float32's rounding of a low-rank update, and float16's.
_ROUNDING, _HALF = 2.0**-18, 2.0**-10


def compare_task_tables(graphs: Mapping[str, ir.Graph], tables: Tables) -> list[Check]:
    """A check for every table that a task changes.

    Args:
        graphs: side ("encoder", "decoder", or "" of one) -> graph.
        tables: of the tasks that the bundle serves.
    """
    names = dict.fromkeys(name for own in tables.values() for name in own)
    return [Check(f"{name}.weight", "compared", _wrong(name, graphs, tables)) for name in names]


def _wrong(name: str, graphs: Mapping[str, ir.Graph], tables: Tables) -> str | None:
    """How the rows differ that the graphs look up; None if they do not."""
    parts = name.split(".")
    sides = [side for side in graphs if not side or side in parts or not {"encoder", "decoder"} & {*parts}]
    said = [_best(graphs[side], {task: own[name] for task, own in tables.items() if name in own}) for side in sides]
    return None if None in said else said[0]


def _best(graph: ir.Graph, wanted: Mapping[int, np.ndarray]) -> str | None:
    """What is wrong with the value of the graph that comes nearest; None where one is right for all tasks."""
    wrong: dict[str, str] = {}
    right: dict[str, int] = {}
    for ids in (value for value in graph.inputs if value.dtype == ir.DataType.INT64 and value.name != TASK_ID):
        for task, table in wanted.items():
            rows = np.arange(len(table))[None]
            feeds = {ids: rows, **{v: np.array([task]) for v in graph.inputs if v.name == TASK_ID}}
            for value, found in _computed(graph, feeds):
                if found.dtype.kind != "f" or found.shape != (1, *table.shape):
                    continue
                said = _difference(found[0], table)
                key = str(value.name)
                if said is None:
                    right[key] = right.get(key, 0) + 1
                else:
                    wrong.setdefault(key, f"task {task}: {said}")
    if any(count == len(wanted) and key not in wrong for key, count in right.items()):
        return None
    if not wrong:
        return "the graph looks up no rows of its shape"
    return wrong[max(wrong, key=lambda key: right.get(key, 0))]


def _difference(found: np.ndarray, table: np.ndarray) -> str | None:
    half = _HALF if found.dtype == np.float16 else 0.0
    most = (_ROUNDING + half) * float(np.abs(table).max())
    off = np.flatnonzero(~(np.abs(found.astype(np.float32) - table) <= most).all(1))
    if not len(off):
        return None
    which = f"row {off[0]}" if len(off) == 1 else f"{len(off)} rows, from {off[0]} on,"
    return f"{which} of {len(table)} differ from the trained ones"


def _computed(graph: ir.Graph, feeds: Mapping[ir.Value, np.ndarray]) -> Iterator[tuple[ir.Value, np.ndarray]]:
    """The values of nodes that need nothing but these inputs and constants."""
    known: dict[ir.Value, np.ndarray] = dict(feeds)

    def of(value: ir.Value | None) -> np.ndarray | None:
        if value is None:
            return None
        if value.const_value is not None and value not in known:
            return value.const_value.numpy()
        return known.get(value)

    for node in graph:
        operator = _OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        forms = node.op_type in ("Transpose", "Identity", "Cast")
        if operator is None or not (forms or any(value in known for value in node.inputs)):
            continue
        inputs = [of(value) for value in node.inputs]
        if any(array is None for array in inputs):
            continue
        result = operator(node, *inputs)
        if result is not None:
            known[node.outputs[0]] = result
            yield node.outputs[0], result


def _gather(node: ir.Node, table: np.ndarray, ids: np.ndarray) -> np.ndarray | None:
    fits = node.attributes.get_int("axis", 0) == 0 and ids.size and int(ids.max()) < len(table)
    return table[ids] if fits else None


def _unsqueeze(node: ir.Node, value: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return np.expand_dims(value, tuple(int(axis) for axis in np.atleast_1d(axes)))


def _cast(node: ir.Node, value: np.ndarray) -> np.ndarray | None:
    to = ir.DataType(node.attributes["to"].as_int())
    floats = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT64, ir.DataType.INT32)
    return value.astype(to.numpy()) if to in floats else None


def _transpose(node: ir.Node, value: np.ndarray) -> np.ndarray:
    perm = node.attributes.get("perm")
    return np.transpose(value, None if perm is None else list(perm.as_ints()))


#: What may stand between ids and rows.
_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "Add": lambda node, a, b: a + b,
    "Mul": lambda node, a, b: a * b,
    "Max": lambda node, *values: reduce(np.maximum, values),
    "Less": lambda node, a, b: a < b,
    "Equal": lambda node, a, b: a == b,
    "Where": lambda node, which, a, b: np.where(which, a, b),
    "MatMul": lambda node, a, b: a @ b,
    "Identity": lambda node, value: value,
    "Gather": _gather,
    "Unsqueeze": _unsqueeze,
    "Cast": _cast,
    "Transpose": _transpose,
}
