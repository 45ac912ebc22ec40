"""What tasks change of tensors, in a graph that is not traced here: an ONNX base, or one of GenAI's builder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from eptx.errors import AdapterError, NotSupportedError
from eptx.exporter.adapters.changes import TensorChange, Whole
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.initializers import add_initializer
from eptx.exporter.bases.names import aliases
from eptx.exporter.bases.products.form import FLOATS, stored_as
from eptx.exporter.bases.products.products import Product, find_products
from eptx.exporter.bases.weights.bank import bank_of
from eptx.exporter.bases.weights.checkpoint import has_weights
from eptx.exporter.bases.weights.sharing import HEAD, SHARED, TABLE, TiedCheckpoint, with_shared
from eptx.exporter.bases.weights.sizes import tokens_of
from eptx.exporter.bases.weights.whole import Banked, Form, Saved


def with_whole(graph: BaseGraph, saved: Saved) -> BaseGraph:
    """The graph with what its tasks share in place, and with banks of what they do not.

    Raises:
        NotSupportedError: the graph does not hold a module that is brought, or not in floating point.
        AdapterError: a tensor is of another shape than the graph's.
    """
    sharing = SHARED if graph.config.get("tie_word_embeddings") else {}
    lengths = _lengths(graph)
    changes = {task: with_shared(saved.tensors.get(task, {}), sharing, lengths) for task in saved.rows}
    names = dict.fromkeys(name for own in changes.values() for name in own)
    values = _Tensors(graph)
    sized = [name for name in (TABLE, HEAD) if graph.generation is not None and name in lengths]
    vocabulary: list[int] = []
    if any(name in names for name in sized):
        vocabulary = [tokens_of(task, own, sized, lengths[TABLE]) for task, own in changes.items()]
        vocabulary += [lengths[TABLE]] if saved.base else []
    banks, alike = {}, []
    labels: tuple[int, ...] | None = None
    for name in names:
        value, stored, turned = values.find(name)
        base = stored.T if turned else stored
        rows = [own.get(name) for own in changes.values()] + ([None] if saved.base else [])
        for change in rows:
            _check(name, change, base.shape, name in sized)
        bank = replace(bank_of(base, rows, name), turned=turned, tokens=name in sized)
        if len(bank.entries) == 1:
            own = values.set(value, bank.arrays[0].astype(stored.dtype))
            if bank.size != len(base):
                widen(own, bank.size)
            alike += [] if bank.entries[0] is None else [name]
        else:
            banks[str(value.name)] = replace(bank, base=np.array(base))  # the builder's file is read and let go
        if graph.generation is None and gives_logits(value):
            labels = (len(base),) * len(rows)
    form = Form(tied=((TABLE, HEAD),) if sharing else ())
    whole = Banked(banks, labels, saved.base, tuple(vocabulary) or None, tuple(alike), form)
    return replace(graph, whole=whole)


class _Tensors:
    """A graph's tensors by the names that the base's folder has for them."""

    def __init__(self, graph: BaseGraph) -> None:
        self._graph = graph
        self._products = {
            product.weight: product for product in find_products(graph.model.graph) if not product.refusal
        }

    def find(self, name: str) -> tuple[ir.Value, np.ndarray, bool]:
        """What nodes read of a tensor, its numbers, and whether it is a product's that is stored [in, out].

        Raises:
            NotSupportedError: the graph does not hold it, or not in floating point.
        """
        graph = self._graph
        own = graph.model.graph.initializers
        named = [value for value in own.values() if value.name in aliases(name, graph.prefix)]
        wanted = _of_folder(graph, name)
        alike = named or [value for value in own.values() if wanted is not None and _holds(value, wanted)]
        if len(alike) > 1 and name in (TABLE, HEAD):
            alike = [value for value in alike if (value in self._products) == (name == HEAD)]
        if len(alike) != 1:
            raise NotSupportedError(
                f"the base's graph has {'more than one' if alike else 'no'} {name}, which the adapter brings whole: "
                "give the base's transformers folder without --base-onnx"
            )
        value = alike[0]
        if value.const_value is None or value.const_value.dtype not in FLOATS:
            problem = f"{name}, which the adapter brings whole, is quantized in the base's graph"
            raise NotSupportedError(f"{problem}; give the graph as it was before")
        if wanted is not None and not _holds(value, wanted):
            problem = f"{name}, which the adapter brings whole, is not the base folder's in this graph"
            raise NotSupportedError(f"{problem}: give the folder that the graph was made of, or no --base-onnx")
        stored, product = value.const_value.numpy(), self._products.get(value)
        turned = _turned(stored, product)
        tables = [node.outputs[0] for node in value.consumers() if node.op_type == "Transpose"]
        if product is None or name not in (TABLE, HEAD) or not tables:
            return value, stored, turned
        if name == TABLE:
            tables[0].name = TABLE
            return tables[0], stored.T, False
        return self._apart(product), stored, turned

    def _apart(self, product: Product) -> ir.Value:
        """What a product reads of a tensor that is a table as well, under a name of its own."""
        weight = product.node.inputs[product.operand]
        assert weight is not None
        apart = ir.node("Identity", [weight])
        apart.outputs[0].name, apart.outputs[0].type, apart.outputs[0].shape = HEAD, weight.type, weight.shape
        self._graph.model.graph.insert_before(product.node, apart)
        product.node.replace_input_with(product.operand, apart.outputs[0])
        return apart.outputs[0]

    def set(self, value: ir.Value, array: np.ndarray) -> ir.Value:
        """Puts other numbers in the place of those that nodes read; what they read now."""
        if value.is_initializer():
            value.const_value, value.shape = ir.Tensor(array, name=value.name), ir.Shape(array.shape)
            return value
        name = f"{value.name}.own"
        own = add_initializer(self._graph.model.graph, name, array)
        for node, index in list(value.uses()):
            node.replace_input_with(index, own)
        return own


def layout_of(graph: BaseGraph, value: ir.Value) -> tuple[np.ndarray, bool]:
    """The numbers of an initializer, and whether it is a product's that is stored [in, out]."""
    products = find_products(graph.model.graph)
    assert value.const_value is not None
    stored = value.const_value.numpy()
    return stored, _turned(stored, next((p for p in products if p.weight is value and not p.refusal), None))


def _turned(stored: np.ndarray, product: Product | None) -> bool:
    return product is not None and stored.ndim == 2 and not stored_as(product.node, product.operand)


def widen(weight: ir.Value, size: int) -> None:
    """Says how wide a product with another number of outputs is, and what is made of it up to the graph's outputs."""
    waiting = [output for node in weight.consumers() if node.op_type in ("MatMul", "Gemm") for output in node.outputs]
    old = next((output.shape[-1] for output in waiting if output.shape), None)
    while waiting:
        value = waiting.pop()
        if value.shape is not None and len(value.shape) and value.shape[-1] == old:
            value.shape = ir.Shape([*list(value.shape)[:-1], size])
        waiting += [output for node in value.consumers() for output in node.outputs]


def _lengths(graph: BaseGraph) -> dict[str, int]:
    """How long the first axis is of the base's tensors, by the names that its folder has for them."""
    if graph.folder is None or not has_weights(graph.folder):
        shapes = {name: value.shape for name, value in graph.model.graph.initializers.items() if value.shape}
        return {name: int(shape.numpy()[0]) for name, shape in shapes.items() if shape}
    checkpoint = TiedCheckpoint(graph.folder, graph.config)
    return {name: checkpoint.shape(name)[0] for name in checkpoint if checkpoint.shape(name)}


def _of_folder(graph: BaseGraph, name: str) -> np.ndarray | None:
    """What the base's folder holds under that name."""
    if graph.folder is None or not has_weights(graph.folder):
        return None
    checkpoint = TiedCheckpoint(graph.folder, graph.config)
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


def _check(name: str, change: TensorChange | None, shape: tuple[int, ...], sized: bool) -> None:
    wrong = None if change is None else change.misfit(shape)
    if isinstance(change, Whole) and change.array.shape != shape and not sized:
        wrong = (
            f"is {list(change.array.shape)} in the adapter, {list(shape)} in this graph: give the base's transformers "
            "folder without --base-onnx"
        )
    if wrong is not None:
        raise AdapterError(f"{name} {wrong}")


def gives_logits(value: ir.Value) -> bool:
    """Whether a product's or a sum's result is the output ``logits``."""
    outputs = [output for node in value.consumers() for output in node.outputs]
    behind = [output for first in outputs for node in first.consumers() for output in node.outputs]
    return any(output.is_graph_output() and output.name == "logits" for output in (*outputs, *behind))
