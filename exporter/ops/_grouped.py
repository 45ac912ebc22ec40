"""Operators of several modules at once: those that read one x, or that are blocks of one packed product.

    PyramidDelta3(y_1, y_2, y_3, x, route, [experts, weights, a, b, kernels, sizes] of 1, of 2, of 3)
    PackedPyramidDelta3(y, columns, x, route, [..] of 1, of 2, of 3)
    BiasedPyramidDelta3(y_1, y_2, y_3, bias_1, bias_2, bias_3, x, ...)

A native kernel of such an operator reads x once, and one call does the work of several. The bodies call the single
operator for each module; they are made here for every operator and number of modules, so that they compute the same.
Each also exists with the biases that the base adds to its outputs: a kernel adds them while it is there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx_ir as ir
import onnxscript

from eptx.exporter.ops.domain import DELTAS, MIN_OPSET
from eptx.manifest.names import OPERATOR_DOMAIN, OPERATOR_VERSION

#: Modules per node; what has more is split over several.
MAX_GROUP = 4

_NAME = re.compile(r"(?P<biased>Biased)?(?P<packed>Packed)?(?P<single>[A-Za-z]+?)(?P<count>[1-9]?)")


def single(function: onnxscript.OnnxFunction) -> list[ir.Function]:
    """An operator's body, and those that it calls."""
    protos = [
        part.to_function_proto()
        for part in (function, *(DELTAS[function.name].calls if function.name in DELTAS else ()))
    ]
    return [ir.serde.deserialize_function(proto) for proto in protos]


def grouped(function: onnxscript.OnnxFunction, count: int) -> ir.Function:
    """The operator of `count` modules that read one x and have each an output of their own."""
    proto = function.to_function_proto()
    bases = _values([f"y_{i}" for i in range(1, count + 1)])
    shared, own = _module_inputs(function, count)
    calls = [_call(function, [*bases[i : i + 1], *shared, *own[i]], f"_{i + 1}") for i in range(count)]
    inputs = [*bases, *shared, *(value for values in own for value in values)]
    outputs = [call.outputs[i] for i in range(len(proto.output)) for call in calls]
    return _function(f"{function.name}{count}", inputs, calls, outputs, list(proto.attribute))


def packed(function: onnxscript.OnnxFunction, count: int) -> ir.Function:
    """The operator of `count` modules that are blocks of one product; `columns` are the start and end of each."""
    y, columns = _values(["y", "columns"])
    shared, own = _module_inputs(function, count)
    split = _split(y, columns, 2 * count + 1)
    pieces = list(split[-1].outputs)  # gap, module, gap, module, ..., gap; a gap may have no width
    calls = [_call(function, [pieces[2 * i + 1], *shared, *own[i]], f"_{i + 1}") for i in range(count)]
    for index, call in enumerate(calls):
        pieces[2 * index + 1] = call.outputs[0]
    join = _node("Concat", pieces, ["joined"], axis=-1)
    inputs = [y, columns, *shared, *(value for values in own for value in values)]
    attributes = list(function.to_function_proto().attribute)
    outputs = [join.outputs[0], *(value for call in calls for value in call.outputs[1:])]
    return _function(f"Packed{function.name}{count}", inputs, [*split, *calls, join], outputs, attributes)


def biased(function: ir.Function, count: int) -> ir.Function:
    """An operator whose first `count` inputs, base outputs, are followed by a bias [out] for each."""
    bases, rest = [_values([str(v.name) for v in part]) for part in (function.inputs[:count], function.inputs[count:])]
    biases = _values([f"bias_{i}" for i in range(1, count + 1)])
    like = [_node("CastLike", [bias, y], [f"{bias.name}_like"]) for y, bias in zip(bases, biases, strict=True)]
    added = [_node("Add", [y, cast.outputs[0]], [f"{y.name}_biased"]) for y, cast in zip(bases, like, strict=True)]
    references = {name: ir.RefAttr(name, name, ir.AttributeType.INT) for name in function.attributes}
    outputs = [str(value.name) for value in function.outputs]
    inputs = [*(node.outputs[0] for node in added), *rest]
    call = _node(function.name, inputs, outputs, OPERATOR_DOMAIN, **references)
    name, attributes = f"Biased{function.name}", list(function.attributes)
    return _function(name, [*bases, *biases, *rest], [*like, *added, call], call.outputs, attributes)


def module_inputs(node: ir.Node, index: int) -> tuple[str, dict[str, ir.Value | None]]:
    """The single operator that a node calls for one of its modules, and that call's inputs by name, but for y."""
    match = _NAME.fullmatch(node.op_type)
    if node.domain != OPERATOR_DOMAIN or match is None or match["single"] not in DELTAS:
        return node.op_type, {}
    name, count = match["single"], int(match["count"] or 1)
    shared, own = DELTAS[name].shared, DELTAS[name].own
    bases = 1 if match["packed"] else count
    start = bases * (2 if match["biased"] else 1) + (1 if match["packed"] else 0)
    first = start + len(shared) + index * len(own)
    values = [*node.inputs[start : start + len(shared)], *node.inputs[first : first + len(own)]]
    return name, dict(zip([*shared, *own], values, strict=False))


def packed_columns(node: ir.Node) -> ir.Value | None:
    """The start and end of every module of a node's packed product; None where it has none."""
    match = _NAME.fullmatch(node.op_type)
    if node.domain != OPERATOR_DOMAIN or match is None or not match["packed"]:
        return None
    index = 2 if match["biased"] else 1
    return node.inputs[index] if len(node.inputs) > index else None


def _module_inputs(function: onnxscript.OnnxFunction, count: int) -> tuple[list[ir.Value], list[list[ir.Value]]]:
    """Inputs of a body: the shared ones, and each module's own."""
    own = [_values([f"{name}_{i}" for name in DELTAS[function.name].own]) for i in range(1, count + 1)]
    return _values(DELTAS[function.name].shared), own


def _values(names: Sequence[str]) -> list[ir.Value]:
    return [ir.Value(name=name) for name in names]


def _node(
    op_type: str,
    inputs: Sequence[ir.Value],
    outputs: Sequence[str],
    domain: str = "",
    **attributes: ir.Attr | int | list[int],
) -> ir.Node:
    return ir.node(op_type, list(inputs), attributes=attributes, domain=domain, outputs=_values(outputs))


def _call(function: onnxscript.OnnxFunction, inputs: Sequence[ir.Value], suffix: str) -> ir.Node:
    """The single operator, with the attributes of the body around it; `inputs` are in the order of the names."""
    proto = function.to_function_proto()
    references = {name: ir.RefAttr(name, name, ir.AttributeType.INT) for name in proto.attribute}
    outputs = [f"{output}{suffix}" for output in proto.output]
    return _node(function.name, inputs, outputs, OPERATOR_DOMAIN, **references)


def _split(y: ir.Value, columns: ir.Value, count: int) -> list[ir.Node]:
    """Nodes of which the last splits y at the columns."""
    zero = _node("Constant", [], ["zero"], value_ints=[0])
    width = _node("Shape", [y], ["width"], start=-1)
    starts = _node("Concat", [zero.outputs[0], columns], ["starts"], axis=0)
    ends = _node("Concat", [columns, width.outputs[0]], ["ends"], axis=0)
    lengths = _node("Sub", [ends.outputs[0], starts.outputs[0]], ["lengths"])
    pieces = _node("Split", [y, lengths.outputs[0]], [f"piece_{i}" for i in range(count)], axis=-1)
    return [zero, width, starts, ends, lengths, pieces]


def _function(
    name: str,
    inputs: Sequence[ir.Value],
    nodes: Sequence[ir.Node],
    outputs: Sequence[ir.Value],
    attributes: Sequence[str],
) -> ir.Function:
    opsets = {"": MIN_OPSET, OPERATOR_DOMAIN: OPERATOR_VERSION}
    graph = ir.Graph(inputs, outputs, nodes=nodes, opset_imports=opsets, name=name)
    declared = [ir.Attr(attribute, ir.AttributeType.UNDEFINED, None) for attribute in attributes]
    return ir.Function(OPERATOR_DOMAIN, name, graph=graph, attributes=declared)
