"""Where ONNX Runtime would run a model's nodes on CUDA, by its published table of kernels (``cuda_kernels.json``).

The functions of the model are inlined. Types are inferred from ONNX's schemas and, of operators that ONNX does not
know, from the table's own columns. A node has a kernel if one of the table takes its version and all of its types. ONNX
Runtime takes a kernel for an operator's version if that is the kernel's first, or lies before its last.

Not every node runs when the model does. What depends on constants alone is folded when a session opens. What depends on
shapes alone is computed on the CPU on purpose: the shapes are there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import onnx
import onnx.inliner

#: What a value depends on: constants alone, shapes alone, a graph's inputs.
Kind = Literal["constant", "shape", "data"]
#: Operators that say something of a tensor's shape and read none of its numbers.
_OF_SHAPES = ("Shape", "Size")
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Placed:
    """One node of a model whose functions are inlined.

    Attributes:
        op_type: its operator.
        version: the version of the operator.
        inputs: the types of its inputs; None of one that is left out, or that nothing is known of.
        outputs: the types of its outputs.
        reads: the names of its inputs.
        gives: the names of its outputs.
        kind: what its outputs depend on.
        kernel: whether CUDA has a kernel for it.
    """

    domain: str
    op_type: str
    version: int
    inputs: tuple[str | None, ...]
    outputs: tuple[str | None, ...]
    reads: tuple[str, ...]
    gives: tuple[str, ...]
    kind: Kind
    kernel: bool

    def __str__(self) -> str:
        return f"{self.domain or 'ai.onnx'}:{self.op_type}-{self.version}({', '.join(map(str, self.inputs))})"


@cache
def _table() -> Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]:
    """Domain and operator -> its kernels."""
    path = Path(__file__).with_name("cuda_kernels.json")
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for kernel in json.loads(path.read_text())["kernels"]:
        domain = "" if kernel["domain"] in _STANDARD else kernel["domain"]
        found.setdefault((domain, kernel["op"]), []).append(kernel)
    return found


def has_kernel(
    domain: str, op_type: str, version: int, inputs: Sequence[str | None], outputs: Sequence[str | None]
) -> bool:
    """Whether CUDA has a kernel for an operator of that version with these types."""
    kernels = _table().get((domain, op_type), ())
    return any(_takes(kernel, version, inputs, outputs) for kernel in kernels)


def _takes(
    kernel: Mapping[str, Any], version: int, inputs: Sequence[str | None], outputs: Sequence[str | None]
) -> bool:
    first, last = kernel["first"], kernel["last"]
    if version != first and (last is None or not first <= version <= last):
        return False
    return any(_fits(kernel["types"], form, inputs, outputs) for form in kernel["forms"])


def _fits(
    types: Mapping[str, Sequence[str]],
    form: Mapping[str, Sequence[str]],
    inputs: Sequence[str | None],
    outputs: Sequence[str | None],
) -> bool:
    for given, formal in ((inputs, form["in"]), (outputs, form["out"])):
        if given and not formal:
            return False
        for index, dtype in enumerate(given):
            variable = formal[min(index, len(formal) - 1)]  # the last one may be many
            if dtype is not None and dtype not in types.get(variable, (dtype,)):
                return False
    return True


def placed(model: onnx.ModelProto) -> list[Placed]:
    """Every node of a model, those of branches too, in the order in which it has them."""
    inlined = onnx.inliner.inline_local_functions(model)
    versions = {each.domain: each.version for each in inlined.opset_import}
    graph = inlined.graph
    state = _State(versions, {}, {})
    for value in graph.initializer:
        state.set(value.name, _name(value.data_type), "constant")
    for value in graph.input:
        if value.name not in state.types:
            state.set(value.name, _name(value.type.tensor_type.elem_type), "data")
    return list(state.walk(graph))


@dataclass
class _State:
    """What is known of the values so far."""

    versions: Mapping[str, int]
    types: dict[str, str | None]
    kinds: dict[str, Kind]

    def set(self, name: str, dtype: str | None, kind: Kind) -> None:
        self.types[name], self.kinds[name] = dtype, kind

    def walk(self, graph: onnx.GraphProto) -> Iterator[Placed]:
        """The nodes of a graph; its values are known behind it."""
        for value in graph.initializer:
            self.set(value.name, _name(value.data_type), "constant")
        for node in graph.node:
            inner = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
            found = [each for branch in inner for each in self.walk(branch)]
            yield from found
            kind = self._kind(node, found)
            inputs = tuple(self.types[name] if name else None for name in node.input)
            outputs = self._outputs(node, inputs, inner)
            for name, dtype in zip(node.output, outputs, strict=True):
                self.set(name, dtype, kind)
            yield self._placed(node, inputs, outputs, kind)

    def _placed(
        self, node: onnx.NodeProto, inputs: tuple[str | None, ...], outputs: tuple[str | None, ...], kind: Kind
    ) -> Placed:
        domain, op_type = "" if node.domain in _STANDARD else node.domain, node.op_type
        schema = self._schema(node)
        version = schema.since_version if schema is not None else 1
        reads = tuple(name for name in node.input if name)
        if op_type == "CastLike":  # ONNX Runtime makes it a Cast to the type that is there
            op_type, inputs, reads = "Cast", inputs[:1], reads[:1]
            version = onnx.defs.get_schema("Cast", self.versions[""]).since_version
        kernel = has_kernel(domain, op_type, version, inputs, outputs) or op_type == "Constant"
        return Placed(domain, op_type, version, inputs, outputs, reads, tuple(node.output), kind, kernel)

    def _kind(self, node: onnx.NodeProto, inner: Sequence[Placed]) -> Kind:
        if node.op_type in _OF_SHAPES and node.domain in _STANDARD:
            return "constant" if self.kinds[node.input[0]] == "constant" else "shape"
        inputs = node.input[:1] if node.op_type == "CastLike" else node.input  # of the other it takes the type
        kinds = {self.kinds[name] for name in inputs if name} | {each.kind for each in inner}
        return "data" if "data" in kinds else "shape" if "shape" in kinds else "constant"

    def _schema(self, node: onnx.NodeProto) -> Any:
        if node.domain not in _STANDARD or not onnx.defs.has(node.op_type):
            return None
        return onnx.defs.get_schema(node.op_type, self.versions[""])

    def _outputs(
        self, node: onnx.NodeProto, inputs: Sequence[str | None], inner: Sequence[onnx.GraphProto]
    ) -> tuple[str | None, ...]:
        """The types of a node's outputs."""
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type == "Cast":
            return (_name(attributes["to"]),)
        if node.op_type == "CastLike":
            return (inputs[1],)
        if node.op_type == "If":
            return tuple(self.types[value.name] for value in inner[0].output)
        if node.op_type in ("Constant", "ConstantOfShape"):
            return (_of_constant(attributes),)
        schema = self._schema(node)
        if schema is not None:
            formals = [each.type_str for each in schema.inputs], [each.type_str for each in schema.outputs]
        else:
            form = _table()[node.domain, node.op_type][0]["forms"][0]
            formals = form["in"], form["out"]
        only = {} if schema is None else _only(schema)
        bound = only | {_at(formals[0], i): dtype for i, dtype in reversed([*enumerate(inputs)]) if dtype is not None}
        return tuple(_plain(_at(formals[1], i), bound) for i, _ in enumerate(node.output))


def _only(schema: Any) -> dict[str, str]:
    """The type variables that stand for one type."""
    found = {each.type_param_str: list(each.allowed_type_strs) for each in schema.type_constraints}
    return {name: _bare(kinds[0]) for name, kinds in found.items() if len(kinds) == 1}


def _bare(kind: str) -> str:
    return kind.removeprefix("tensor(").removesuffix(")")


def _at(formals: Sequence[str], index: int) -> str:
    return formals[min(index, len(formals) - 1)]


def _plain(formal: str, bound: Mapping[str, str]) -> str | None:
    inner = _bare(formal)
    return bound.get(formal, inner if inner in _NAMES.values() else None)


def _of_constant(attributes: Mapping[str, Any]) -> str:
    if "value" in attributes:
        return _name(attributes["value"].data_type)
    kind = next((name for name in attributes if name.startswith("value_")), "value_float")
    return "int64" if "int" in kind else "float"


#: ONNX's number of a type -> how the table calls it.
_NAMES = {
    number: {"float": "float"}.get(name.lower(), name.lower())
    for name, number in onnx.TensorProto.DataType.items()
    if name != "UNDEFINED"
}


def _name(number: int) -> str:
    return _NAMES[number]


def left_to_cpu(model: onnx.ModelProto) -> list[Placed]:
    """The nodes that run on the CPU although they compute no shape: CUDA has no kernel for them."""
    return [each for each in placed(model) if each.kind == "data" and not each.kernel]
