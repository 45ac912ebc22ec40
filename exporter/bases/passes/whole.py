"""What tasks change of tensors, in a graph that is not traced here: an ONNX base, or one of GenAI's builder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from eptx.errors import AdapterError, NotSupportedError
from eptx.exporter.adapters.changes import TensorChange, Whole
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.names import aliases
from eptx.exporter.bases.products.form import FLOATS, stored_as
from eptx.exporter.bases.products.products import find_products
from eptx.exporter.bases.weights.bank import bank_of
from eptx.exporter.bases.weights.checkpoint import BaseCheckpoint, has_weights
from eptx.exporter.bases.weights.whole import Banked, Saved


def with_whole(graph: BaseGraph, saved: Saved) -> BaseGraph:
    """The graph with what its tasks share in place, and with banks of what they do not.

    Raises:
        NotSupportedError: the graph does not hold a module that is brought, or not in floating point.
        AdapterError: a tensor is of another shape than the graph's.
    """
    names = dict.fromkeys(name for task in saved.rows for name in saved.tensors.get(task, ()))
    banks = {}
    labels: tuple[int, ...] | None = None
    for name in names:
        value, turned = _find(graph, name)
        assert value.const_value is not None and value.name is not None
        stored = value.const_value.numpy()
        base = stored.T if turned else stored
        rows = [saved.tensors.get(task, {}).get(name) for task in saved.rows] + ([None] if saved.base else [])
        for change in rows:
            _check(name, change, base.shape)
        bank = replace(bank_of(base, rows), turned=turned)
        if len(bank.entries) == 1:
            value.const_value = ir.Tensor(bank.arrays[0].astype(stored.dtype), name=value.name)
        else:
            banks[value.name] = bank
        if graph.generation is None and _gives_logits(graph, value):
            labels = (len(base),) * len(rows)
    return replace(graph, whole=Banked(banks, labels, None, saved.base))


def _find(graph: BaseGraph, name: str) -> tuple[ir.Value, bool]:
    """The initializer of a tensor, and whether it is a product's that is stored [in, out]."""
    own = graph.model.graph.initializers
    products = {product.weight: product for product in find_products(graph.model.graph) if not product.refusal}
    named = [value for value in own.values() if value.name in aliases(name, graph.prefix)]
    wanted = _of_folder(graph, name)
    alike = named or [value for value in own.values() if wanted is not None and _holds(value, wanted)]
    if len(alike) != 1:
        raise NotSupportedError(
            f"the base's graph has {'more than one' if alike else 'no'} {name}, which the adapter brings whole: give "
            "the base's transformers folder without --base-onnx"
        )
    value = alike[0]
    if value.const_value is None or value.const_value.dtype not in FLOATS:
        raise NotSupportedError(f"{name}, which the adapter brings whole, is quantized in the base's graph")
    if wanted is not None and not _holds(value, wanted):
        raise NotSupportedError(f"{name}, which the adapter brings whole, is not the base folder's in this graph")
    product = products.get(value)
    if product is None or len(value.const_value.shape) != 2:
        return value, False
    return value, not stored_as(product.node, product.operand)


def _of_folder(graph: BaseGraph, name: str) -> np.ndarray | None:
    """What the base's folder holds under that name."""
    if graph.folder is None or not has_weights(graph.folder):
        return None
    checkpoint = BaseCheckpoint(graph.folder)
    key = next((alias for alias in aliases(name, graph.prefix) if alias in checkpoint), None)
    return None if key is None else checkpoint.array(key)


def _holds(value: ir.Value, wanted: np.ndarray) -> bool:
    if value.const_value is None or value.const_value.dtype not in FLOATS:
        return False
    shape = tuple(value.const_value.shape.numpy())
    if shape not in (wanted.shape, wanted.shape[::-1]):
        return False
    stored = value.const_value.numpy()
    forms = [form.astype(stored.dtype) for form in (wanted, wanted.T) if form.shape == stored.shape]
    return any(np.array_equal(stored, form) for form in forms)


def _check(name: str, change: TensorChange | None, shape: tuple[int, ...]) -> None:
    wrong = None if change is None else change.misfit(shape)
    if isinstance(change, Whole) and change.array.shape != shape:
        wrong = (
            f"is {list(change.array.shape)} in the adapter, {list(shape)} in this graph: give the base's transformers "
            "folder without --base-onnx"
        )
    if wrong is not None:
        raise AdapterError(f"{name} {wrong}")


def _gives_logits(graph: BaseGraph, value: ir.Value) -> bool:
    """Whether a product's or a sum's result is the output ``logits``."""
    outputs = [output for node in value.consumers() for output in node.outputs]
    behind = [output for first in outputs for node in first.consumers() for output in node.outputs]
    return any(output.is_graph_output() and output.name == "logits" for output in (*outputs, *behind))
