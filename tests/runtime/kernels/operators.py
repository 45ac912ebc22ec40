"""One node of domain ``ai.eptx`` as a float32 graph, run with the native kernels and with its function's body."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from eptx.exporter import ops
from eptx.manifest.names import OPERATOR_DOMAIN
from eptx.runtime.ort.kernels import kernel_library

Arrays = dict[str, np.ndarray]
FUNCTIONS = {f.name: f for f in (ops.LowRankDelta, ops.PyramidDelta, ops.RoutedPyramidDelta, ops.TuckerDelta)}
FUNCTIONS |= {f.name: f for f in (ops.PyramidRouter, ops.TuckerRouter, ops.TokenMixtureDelta, ops.PooledMixtureDelta)}
FUNCTIONS |= {f.name: f for f in (ops.TopExperts, ops.ChosenExpertsDelta, ops.ChosenExpertsMean, ops.ChosenExpertsSum)}
GATE = ("task_embedding", "gate_weight", "gate_bias")

#: Two orders of summing n numbers differ by at most 2 n 2^-24 of the sum of their magnitudes. The longest chains here
#: (x through a rank and the experts' kernels) have some hundred terms, whose errors mostly cancel.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Example:
    """A node and its inputs.

    Attributes:
        operator: of one module.
        y: each module's base output, or one for all where they are packed.
        shared: inputs that the modules have in common, by name.
        own: each module's inputs, by name.
        columns: of the packed modules; None: they are not packed.
        attributes: of the operator.
        biases: one for each of y, or none at all.
    """

    operator: str
    y: Sequence[np.ndarray]
    shared: Arrays
    own: Sequence[Arrays]
    columns: np.ndarray | None = None
    attributes: Mapping[str, int] = field(default_factory=dict)
    biases: Sequence[np.ndarray] = ()

    @property
    def name(self) -> str:
        """The node's type."""
        count, biased = len(self.own), "Biased" if self.biases else ""
        if self.columns is not None:
            return f"{biased}Packed{self.operator}{count}"
        return f"{biased}{self.operator}{count if count > 1 else ''}"

    @property
    def arrays(self) -> Arrays:
        """The node's inputs, in order."""
        arrays = {f"y_{i}": y for i, y in enumerate(self.y)}
        arrays |= {f"bias_{i}": bias for i, bias in enumerate(self.biases)}
        if self.columns is not None:
            arrays["columns"] = self.columns
        arrays |= self.shared
        return arrays | {f"{name}_{i}": array for i, own in enumerate(self.own) for name, array in own.items()}

    @property
    def constants(self) -> set[str]:
        """Those that are weights in a bundle."""
        own = (f"{name}_{i}" for i, own in enumerate(self.own) for name in own)
        return {"columns", *own, *(f"bias_{i}" for i in range(len(self.biases)))} & set(self.arrays)

    def of_rows(self, rows: Sequence[int], per_row: Sequence[str]) -> Example:
        """Some of the rows alone; `per_row` are the shared inputs that have rows."""
        take = list(rows)
        shared = {name: array[take] if name in per_row else array for name, array in self.shared.items()}
        return replace(self, y=[y[take] for y in self.y], shared=shared)

    def magnitudes(self) -> Example:
        """The same with every number positive: what it computes is the sum of the magnitudes."""
        if self.operator == "RoutedPyramidDelta":
            return self.apart(kernels=False).magnitudes()  # positive numbers would route otherwise

        def positive(arrays: Arrays) -> Arrays:
            found = {name: np.abs(a) if a.dtype.kind == "f" else a for name, a in arrays.items()}
            if "gate" in found:  # every expert counts in full: the gate makes them alike, and b as large as all of them
                found |= {"gate": 0 * found["gate"], "b": found["b"].astype(np.float32) * len(found["gate"])}
            return found

        y, biases = [np.abs(y) for y in self.y], [np.abs(bias) for bias in self.biases]
        return replace(self, y=y, biases=biases, shared=positive(self.shared), own=[positive(own) for own in self.own])

    def apart(self, *, kernels: bool) -> Example:
        """A RoutedPyramidDelta as the PyramidDelta of what PyramidRouters say."""
        ids, x = self.shared["task_id"], self.shared["x"]
        modules = []
        for own in self.own:
            gate, attributes = {name: own[name] for name in GATE}, {"top_k": self.attributes["top_k"]}
            router = Example("PyramidRouter", [], {"task_id": ids, "x": x}, [gate], attributes=attributes)
            experts, weights, _ = run(graph(router), router.arrays, kernels=kernels)
            rest = {name: array for name, array in own.items() if name not in GATE}
            modules.append({"experts": experts, "weights": weights, **rest})
        attributes = {"in_features": self.attributes["in_features"]}
        shared = {"x": x, "route": np.arange(len(ids))}
        return replace(self, operator="PyramidDelta", shared=shared, own=modules, attributes=attributes)


def graph(example: Example, *, constants: bool = True, in_place: bool = True, opset: int = 20) -> ir.Model:
    """The node as a model.

    Args:
        example: the node.
        constants: whether its weights are initializers; else they are inputs of the graph.
        in_place: whether its base outputs are values that nothing else reads, so that it may overwrite them; else they
            are outputs of the graph too.
        opset: of the graph.
    """
    functions = _functions(example)
    function = functions[-1]
    nodes: list[ir.Node] = []
    inputs: list[ir.Value] = []
    initializers: list[ir.Value] = []
    operands: list[ir.Value] = []
    kept: list[ir.Value] = []
    for name, array in example.arrays.items():
        value = ir.Value(name=name, type=ir.TensorType(ir.Tensor(array).dtype))
        if constants and name in example.constants:
            value.shape, value.const_value = ir.Shape(array.shape), ir.Tensor(array, name=name)
            initializers.append(value)
        else:
            inputs.append(value)
        if name.startswith("y_"):  # an input of the graph is never overwritten: the node gets a value of its own
            node = ir.node("Neg", [value])
            nodes.append(node)
            value = node.outputs[0]
            value.name, value.type = f"negative_{name}", ir.TensorType(ir.DataType.FLOAT)
            kept.append(value)
        operands.append(value)
    node = ir.node(
        function.name,
        operands,
        attributes=example.attributes,
        domain=OPERATOR_DOMAIN,
        num_outputs=len(function.outputs),
    )
    for index, value in enumerate(node.outputs):
        value.name, value.type = f"out_{index}", ir.TensorType(_output_type(example.operator, index))
    outputs = [*node.outputs, *([] if in_place else kept)]
    body = ir.Graph(
        inputs, outputs, nodes=[*nodes, node], initializers=initializers, opset_imports={"": opset}, name="node"
    )
    model = ir.Model(body, ir_version=10)
    ops.add_functions(model, functions)
    return model


def _functions(example: Example) -> list[ir.Function]:
    """The node's function, last, and those that it calls."""
    operator, count = FUNCTIONS[example.operator], len(example.own)
    function, *called = ops.single(operator)
    functions = [*called, function]
    if example.columns is not None:
        functions.append(ops.packed(operator, count))
    elif count > 1:
        functions.append(ops.grouped(operator, count))
    if example.biases:
        functions.append(ops.biased(functions[-1], len(example.biases)))
    return functions


def _output_type(operator: str, index: int) -> ir.DataType:
    chooses = operator.endswith("Router") or operator == "TopExperts"
    return ir.DataType.INT64 if chooses and index == 0 else ir.DataType.FLOAT


@functools.cache
def library() -> str:
    """The kernels' library; skips the test where it was not built."""
    path = kernel_library()
    if path is None:
        pytest.skip("the native kernels are not built: make native")
    return str(path)


def session(model: ir.Model, *, kernels: bool, optimize: bool = True, threads: int = 1) -> ort.InferenceSession:
    """The model in ONNX Runtime."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if kernels:
        options.register_custom_ops_library(library())
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: ir.Model, arrays: Mapping[str, np.ndarray], **how: Any) -> list[np.ndarray]:
    """All outputs of a model; of the arrays those are fed that it has inputs for."""
    opened = session(model, **how)
    feeds = {value.name: arrays[value.name] for value in opened.get_inputs()}
    feeds |= {name: -array for name, array in feeds.items() if name.startswith("y_")}
    return opened.run(None, feeds)  # type: ignore[no-any-return]


def close(got: Sequence[np.ndarray], want: Sequence[np.ndarray], magnitudes: Sequence[np.ndarray]) -> None:
    """Whether outputs are the same up to the rounding of sums of these magnitudes."""
    for a, b, size in zip(got, want, magnitudes, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert (np.abs(a - b) <= TOLERANCE * size).all(), (
            f"off by {np.max(np.abs(a - b) / np.maximum(size, 1e-30)):.2g}"
        )
