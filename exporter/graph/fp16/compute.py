"""float16 arithmetic: the graph computes in float16 as its weights are stored, but for what float16 cannot hold.

Inputs and outputs of the graph keep their types; casts are put where a value meets a node that computes in the other
type. These nodes go on in float32:

- sums over many numbers, and what undoes squares (`_SUMS`): ONNX Runtime's fused kernels add up in float32 too;
- what is made of integers alone: positions, buckets of distances, masks. A float16 counts to 2048;
- what routers say: operators of ``ai.eptx`` give it in the type of the router's own numbers, float32;
- what is made of constants alone: ONNX Runtime folds it when a session opens, which it does on the CPU, whose provider
  has few kernels in float16. What it would not fold would run in every call;
- what reads a small constant that float16 does not hold, an epsilon for instance;
- what the editor says (`GraphBuilder.wide`), and nodes with branches.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from eptx.exporter.bases.initializers import add_initializer
from eptx.exporter.graph.fp16.operators import activations
from eptx.exporter.graph.fp16.store import HALF, LARGEST, halved, is_weight
from eptx.manifest.names import OPERATOR_DOMAIN

_F32, _F16 = ir.DataType.FLOAT, ir.DataType.FLOAT16
_SUMS = {
    *("Pow", "Sqrt", "Reciprocal", "Exp", "Log", "CumSum", "LpNormalization", "MeanVarianceNormalization"),
    *("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd"),
    *("ReduceLogSum", "ReduceLogSumExp"),
}
#: Operators that ONNX has in float32 only, or whose type is an attribute.
_FLOAT32_ONLY = {
    *("Range", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"),
    *("EyeLike", "STFT", "DFT", "MelWeightMatrix", "NonMaxSuppression"),
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
}
#: Operator -> the inputs that are float32 whatever the others are.
_FLOAT32_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}
#: The outputs of a norm that are float32 whatever the others are: its mean and deviation.
_STATISTICS = (1, 2)
_NOT_FLOATS = {
    "Shape",
    "Size",
    "ArgMax",
    "ArgMin",
    "NonZero",
    "Equal",
    "Less",
    "LessOrEqual",
    "Greater",
    "GreaterOrEqual",
}
#: Operator -> the input that its output has the type of, where it is not the first.
_TYPED_BY = {"Where": 1, "OneHot": 2}
_SMALLEST = float(np.finfo(np.float16).smallest_normal)


def compute_fp16(model: ir.Model, exact: Collection[str], wide: Collection[ir.Node]) -> None:
    """Has a float32 graph compute in float16.

    Args:
        model: changed in place.
        exact: names of the adapter's constants that stay float32; see `GraphBuilder.exact`.
        wide: nodes that go on in float32.

    Raises:
        LimitError: a weight is too large for float16.
    """
    _Pass(model, frozenset(exact), frozenset(wide)).run()


@dataclass
class _Pass:
    model: ir.Model
    exact: frozenset[str]
    wide: frozenset[ir.Node]
    _floats: dict[ir.Value, bool] = field(default_factory=dict)
    #: Values that are float32 as they are made, and those whose like stays so.
    _kept: set[ir.Value] = field(default_factory=set)
    #: Values that are the same in every run.
    _constant: set[ir.Value] = field(default_factory=set)
    _casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)
    _halves: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def run(self) -> None:
        graph = self.model.graph
        nodes, outputs = list(graph), list(graph.outputs)
        initializers = [value for value in graph.initializers.values() if value.dtype == _F32]
        self._kept |= {value for value in initializers if value.name in self.exact}
        self._kept |= {value for value in graph.inputs if not value.is_initializer()}
        self._constant |= set(graph.initializers.values())
        inputs = {value for value in graph.inputs if not value.is_initializer()}
        for node in nodes:  # before inputs are replaced
            self._floats |= {value: self._is_float(value) for value in node.outputs}
        for node in nodes:
            if node.domain == OPERATOR_DOMAIN:
                self._operator(node)
            elif self._is_wide(node, inputs):
                self._kept |= {value for value in node.outputs if self._is_float(value)}
                self._need(node, range(len(node.inputs)), _F32)
            else:
                if node.op_type == "Cast" and node.attributes["to"].as_int() == _F32:
                    node.attributes["to"] = ir.AttrInt64("to", int(_F16))
                if node.op_type.endswith("LayerNormalization"):
                    self._kept |= {value for value in node.outputs if value.index() in _STATISTICS}
                only = _FLOAT32_INPUTS.get(node.op_type, ())
                self._need(node, only, _F32)
                self._need(node, [i for i in range(len(node.inputs)) if i not in only], _F16)
        for inner in graph.subgraphs():
            for node in inner:
                own = [i for i, value in enumerate(node.inputs) if value is not None and value.graph is graph]
                self._need(node, own, _F32)
        for value in (value for node in nodes for value in node.outputs):
            if value not in self._kept and self._is_float(value):
                value.type = ir.TensorType(_F16)
        for index, value in enumerate(outputs):
            if value.dtype == _F16:
                graph.outputs[index] = self._output(value)
        for value in initializers:
            if not value.uses() and not value.is_graph_output():
                del graph.initializers[str(value.name)]

    def _operator(self, node: ir.Node) -> None:
        """An operator of ``ai.eptx``: its outputs follow the activations, but what routers give."""
        inputs, adapted = activations(self.model, node)
        self._need(node, inputs, _F16)
        for index, value in enumerate(node.inputs):
            if index not in inputs and value is not None and is_weight(value) and value not in self._kept:
                node.replace_input_with(index, self._half(value))
        self._kept |= set(node.outputs[adapted:])
        self._floats |= dict.fromkeys(node.outputs[:adapted], True)

    def _is_wide(self, node: ir.Node, inputs: Collection[ir.Value]) -> bool:
        if node in self.wide or node.op_type in _SUMS | _FLOAT32_ONLY:
            return True
        if any(attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attr in node.attributes.values()):
            return True
        read = [value for value in node.inputs if value is not None and self._is_float(value)]
        if not read:  # it makes floats of what is none
            return True
        if all(value is None or value in self._constant for value in node.inputs):
            self._constant |= set(node.outputs)
            return True
        if any(value.is_initializer() and _is_past_float16(value) for value in read):
            return True
        moving = [value for value in read if value not in self._constant or value.name in self.exact]
        return bool(moving) and all(value in self._kept and value not in inputs for value in moving)

    def _is_float(self, value: ir.Value) -> bool:
        """Whether a value was float32 before."""
        if value.dtype is not None:
            return value.dtype == _F32
        if value not in self._floats:
            self._floats[value] = self._made_float(value)
        return self._floats[value]

    def _made_float(self, value: ir.Value) -> bool:
        node = value.producer()
        if node is None or node.op_type in _NOT_FLOATS or (node.op_type == "TopK" and value.index() == 1):
            return False
        if node.op_type == "Cast":
            return node.attributes["to"].as_int() == _F32
        first = _TYPED_BY.get(node.op_type, 0)
        typed = node.inputs[first] if first < len(node.inputs) else None
        return typed is not None and self._is_float(typed)

    def _need(self, node: ir.Node, indices: Collection[int], dtype: ir.DataType) -> None:
        """Has a node read these of its inputs in a type, as far as they are floats."""
        for index in indices:
            value = node.inputs[index]
            if value is not None and self._is_float(value):
                found = self._as(value, dtype)
                if found is not value:
                    node.replace_input_with(index, found)

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if value.is_initializer() and value.name not in self.exact:
            if dtype == _F16:
                return self._half(value)
            if not is_weight(value):
                return self._as_wide(value)
            return self._cast(self._half(value), dtype)
        if (value in self._kept or value.is_initializer()) == (dtype == _F32):
            return value
        return self._cast(value, dtype)

    def _half(self, value: ir.Value) -> ir.Value:
        """What a constant is stored as."""
        if value not in self._halves:
            array = value.const_value.numpy()  # type: ignore[union-attr]
            stored = halved(value, array if is_weight(value) else _cut(array))
            self._halves[value] = add_initializer(self.model.graph, f"{value.name}{HALF}", stored)
        return self._halves[value]

    def _as_wide(self, value: ir.Value) -> ir.Value:
        """A small constant in float32, cut all the same: what is made of it may be cast to float16."""
        array = value.const_value.numpy()  # type: ignore[union-attr]
        if (array < -LARGEST).any():
            value.const_value = ir.Tensor(_cut(array), name=value.name)
        return value

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        key = value, dtype
        if key not in self._casts:
            node = ir.node(
                "Cast", [value], attributes={"to": int(dtype)}, name=f"{value.name}/Cast.{dtype.name.lower()}"
            )
            made = node.outputs[0]
            made.name, made.shape, made.type = f"{value.name}.{dtype.name.lower()}", value.shape, ir.TensorType(dtype)
            self._casts[key] = made
            if dtype == _F32:
                self._kept.add(made)
            producer = value.producer()
            graph = self.model.graph
            if producer is None:
                graph.insert_before(graph[0], node)
            else:
                graph.insert_after(producer, node)
        return self._casts[key]

    def _output(self, value: ir.Value) -> ir.Value:
        """A graph output in float32, by its name."""
        name = value.name
        value.name = f"{name}.float16"
        made = self._cast(value, _F32)
        made.name = name
        return made


def _is_past_float16(value: ir.Value) -> bool:
    """Whether a constant is one number that float16 has as nothing, coarsely or not at all; masks' fills are cut."""
    if value.const_value is None or value.const_value.size != 1:
        return False
    number = float(value.const_value.numpy().item())
    return 0 < abs(number) < _SMALLEST or LARGEST < number < np.inf


def _cut(array: np.ndarray) -> np.ndarray:
    """A small constant whose negative numbers, such as a mask's fill, float16 holds."""
    return np.where(np.isneginf(array), array, np.maximum(array, -LARGEST)).astype(np.float32)
