"""Linears that read one x as a graph, each alone or all in one packed product, with an adapter of several of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.bases import Site
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.methods.ept.adapter import EptAdapter
from eptx.exporter.methods.lora.adapter import LoraAdapter
from eptx.exporter.methods.method import method_of
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from tests.support.examples import ept_example, lora_example, tucka_example
from tests.support.linear_graph import DOUBLE, DoubleEditor
from tests.support.strategies import Linear

EXAMPLES: dict[str, Callable[[Linear], Any]] = {"ept": ept_example, "lora": lora_example, "tucka": tucka_example}


@dataclass(frozen=True)
class Several:
    """Linears m0, m1, ... and a batch for them.

    Attributes:
        weights: module -> [out, in].
        gaps: columns of nobody before, between and after the modules of the packed product; None: nothing is packed.
        x: [rows, length, in].
        rng: for the adapters.
        biases: product ("m0", ..., or "packed") -> what is added to its output.
    """

    weights: Mapping[str, np.ndarray]
    gaps: Sequence[int] | None
    x: np.ndarray
    rng: np.random.Generator
    biases: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, widths: Sequence[int], gaps: Sequence[int] | None, rng: np.random.Generator) -> Several:
        """Linears of these output widths, on four rows."""
        weights = {f"m{i}": rng.normal(size=(width, 8)) for i, width in enumerate(widths)}
        return cls(weights, gaps, rng.normal(size=(4, 3, 8)), rng)

    def adapter(self, method: str) -> Adapter:
        """An adapter of all modules."""
        examples = {name: EXAMPLES[method](Linear(weight, self.x, self.rng)) for name, weight in self.weights.items()}
        first = next(iter(examples.values()))
        if isinstance(first, LoraAdapter):
            by_task = {
                task: {name: example.by_task[task]["linear"] for name, example in examples.items()}
                for task in first.tasks
            }
            return replace(first, by_task=by_task)
        assert isinstance(first, EptAdapter | TuckaAdapter)
        modules = {name: example.modules["linear"] for name, example in examples.items()}
        return replace(first, modules=modules, **({"router": "m0"} if isinstance(first, TuckaAdapter) else {}))

    def biased(self, products: Sequence[str]) -> Several:
        """The same with biases of some products."""
        width = {name: len(weight) for name, weight in self.weights.items()}
        if self.gaps is not None:
            width["packed"] = len(self.packed_weight())
        return replace(self, biases={name: self.rng.normal(size=width[name]) for name in products})

    def attached(self, adapter: Adapter, plan: GraphSettings, *, opset: int = 20) -> ir.Model:
        """The graph with an adapter of some modules: an output per module, or the packed one."""
        model, sites = self.graph(opset=opset)
        attach(model, sites, adapter, plan)
        return model

    def graph(self, *, opset: int = 20) -> tuple[ir.Model, dict[str, Site]]:
        """The graph without an adapter."""
        x = ir.Value(name="x", type=ir.TensorType(DOUBLE), shape=ir.Shape(["batch", *self.x.shape[1:]]))
        if self.gaps is None:
            nodes = [_product(x, weight, name) for name, weight in self.weights.items()]
            sites = {n: Site(n, node, (0, len(self.weights[n]))) for n, node in zip(self.weights, nodes, strict=True)}
        else:
            nodes = [_product(x, self.packed_weight(), "packed")]
            sites = {name: Site(name, nodes[0], columns) for name, columns in self.columns().items()}
        names = ["packed"] if self.gaps is not None else list(self.weights)
        ends = [
            _sum(node.outputs[0], self.biases[name], name) if name in self.biases else node
            for name, node in zip(names, nodes, strict=True)
        ]
        nodes = list(dict.fromkeys([*nodes, *ends]))
        constants = [value for node in nodes if (value := node.inputs[1]) is not None]
        outputs, imports = [node.outputs[0] for node in ends], {"": opset}
        graph = ir.Graph([x], outputs, nodes=nodes, initializers=constants, opset_imports=imports, name="several")
        return ir.Model(graph, ir_version=10), sites

    def columns(self) -> dict[str, tuple[int, int]]:
        """Where each module is in the packed product."""
        assert self.gaps is not None
        found, start = {}, 0
        for (name, weight), gap in zip(self.weights.items(), self.gaps, strict=False):
            start += gap
            found[name] = start, start + len(weight)
            start += len(weight)
        return found

    def packed_weight(self) -> np.ndarray:
        """[all columns, in]."""
        assert self.gaps is not None
        rng = np.random.default_rng(2)
        blocks = [rng.normal(size=(self.gaps[0], 8))]
        for weight, gap in zip(self.weights.values(), self.gaps[1:], strict=True):
            blocks += [weight, rng.normal(size=(gap, 8))]
        return np.concatenate(blocks)

    def folded(self, adapter: Adapter, choices: Sequence[Any]) -> list[np.ndarray]:
        """The same outputs with each row's choice (task id or route) folded into the weights; None is the base."""
        fold, adapted = method_of(adapter.method).fold, set(adapter.module_names)
        rows: list[list[np.ndarray]] = []
        for row, choice in zip(self.x, choices, strict=True):
            weights = {
                name: weight if choice is None or name not in adapted else fold(adapter, name, weight, choice)
                for name, weight in self.weights.items()
            }
            products = self._products(weights).items()
            rows.append([row @ weight.T + self.biases.get(name, 0) for name, weight in products])
        return [np.stack(parts) for parts in zip(*rows, strict=True)]

    def _products(self, weights: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        if self.gaps is None:
            return weights
        packed = self.packed_weight()
        for name, (start, stop) in self.columns().items():
            packed[start:stop] = weights[name]
        return {"packed": packed}


def attach(model: ir.Model, sites: Mapping[str, Site], adapter: Adapter, plan: GraphSettings) -> DoubleEditor:
    """Attaches an adapter of some of the modules to a graph."""
    editor = DoubleEditor(model)
    method_of(adapter.method).attach(adapter, editor, {name: sites[name] for name in adapter.module_names}, plan)
    editor.finish()
    return editor


def _product(x: ir.Value, weight: np.ndarray, name: str) -> ir.Node:
    return _node("MatMul", x, constant(f"{name}.weight", np.ascontiguousarray(weight.T)), f"{name}.y", len(weight))


def _sum(y: ir.Value, bias: np.ndarray, name: str) -> ir.Node:
    return _node("Add", y, constant(f"{name}.bias", bias), f"{name}.sum", len(bias))


def _node(op_type: str, x: ir.Value, other: ir.Value, output: str, width: int) -> ir.Node:
    node = ir.node(op_type, [x, other])
    assert x.shape is not None
    node.outputs[0].name, node.outputs[0].type = output, ir.TensorType(DOUBLE)
    node.outputs[0].shape = ir.Shape([*list(x.shape)[:-1], width])
    return node


def constant(name: str, array: np.ndarray) -> ir.Value:
    """An initializer that is in no graph yet."""
    tensor = ir.Tensor(array, name=name)
    return ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
