"""The lowest IR version and opset in which a graph means the same: so that older releases of ONNX Runtime load it.

An opset raises the version of an operator also where it only allows it further types. A graph that uses none of these
means the same in the opset before. `_OTHER`, `_ATTRIBUTES` and `_TYPES` list what is left: what a node may hold that
the opset before does not know, or reads otherwise. (https://onnx.ai/onnx/operators; a test compares the lists with the
schemas of the installed onnx.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from eptx.exporter.ops.domain import MIN_OPSET
from eptx.manifest.names import OPERATOR_DOMAIN

#: The oldest IR version that eptx writes: ONNX Runtime 1.14, which reads 8 and no newer one, crashes on functions.
MIN_IR_VERSION = 9
#: The newest opset that the lists below know.
NEWEST_OPSET = 26

#: Opset -> operators that it brings, or that mean something else from it on (or may: it changed how they read an
#: attribute that they had).
_OTHER = {
    19: ("AveragePool", "DeformConv", "Pad", "Resize"),
    20: ("AffineGrid", "DFT", "Gelu", "GridSample", "ImageDecoder", "RegexFullMatch", "StringConcat", "StringSplit"),
    21: ("GroupNormalization",),
    23: ("Attention", "RMSNormalization", "RotaryEmbedding"),
    24: ("Attention", "Swish", "TensorScatter"),
    25: ("Attention",),
    26: ("BitCast", "CumProd"),
}
#: (Opset, operator) -> attributes that it brings.
_ATTRIBUTES = {
    (19, "Cast"): ("saturate",),
    (19, "CastLike"): ("saturate",),
    (19, "QuantizeLinear"): ("saturate",),
    (21, "DequantizeLinear"): ("block_size",),
    (21, "QuantizeLinear"): ("block_size", "output_dtype"),
    (23, "DequantizeLinear"): ("output_dtype",),
    (23, "QuantizeLinear"): ("precision",),
    (24, "Cast"): ("round_mode",),
    (24, "CastLike"): ("round_mode",),
}
#: (Opset, operator) -> types of inputs or outputs that it brings, besides those of `_NEW_TYPES` and bfloat16.
_TYPES = {
    (19, "DequantizeLinear"): (ir.DataType.FLOAT16,),
    (19, "Equal"): (ir.DataType.STRING,),
    (19, "QuantizeLinear"): (ir.DataType.FLOAT16, ir.DataType.INT32),
    (20, "IsInf"): (ir.DataType.FLOAT16,),
    (20, "ReduceMax"): (ir.DataType.BOOL,),
    (20, "ReduceMin"): (ir.DataType.BOOL,),
    (21, "DequantizeLinear"): (ir.DataType.INT16, ir.DataType.UINT16),
    (21, "QLinearMatMul"): (ir.DataType.FLOAT16,),
    (21, "QuantizeLinear"): (ir.DataType.INT16, ir.DataType.UINT16),
}
#: Types that ONNX got later -> the IR version.
_NEW_TYPES = {
    ir.DataType.FLOAT8E4M3FN: MIN_IR_VERSION,
    ir.DataType.FLOAT8E4M3FNUZ: MIN_IR_VERSION,
    ir.DataType.FLOAT8E5M2: MIN_IR_VERSION,
    ir.DataType.FLOAT8E5M2FNUZ: MIN_IR_VERSION,
    ir.DataType.INT4: 10,
    ir.DataType.UINT4: 10,
    ir.DataType.FLOAT4E2M1: 11,
    ir.DataType.FLOAT8E8M0: 12,
    ir.DataType.INT2: 13,
    ir.DataType.UINT2: 13,
}
#: Attributes that hold a type.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")


@dataclass(frozen=True)
class Lowest:
    """The lowest versions in which a model means the same.

    Attributes:
        ir_version: its IR version.
        opset: of ``ai.onnx``.
        operator: which operator asks for that opset; None where no one operator does.
    """

    ir_version: int
    opset: int
    operator: str | None


def lower(model: ir.Model) -> Lowest:
    """Lowers a model's IR version and opset, in place, as far as it means the same.

    The bodies of eptx's functions are written in `MIN_OPSET`, so they mean the same in any opset from there on.
    """
    lowest = _lowest(model)
    model.ir_version = lowest.ir_version
    imports = [graph.opset_imports for graph in model.graphs()]
    for own in [*imports, *(function.opset_imports for function in model.functions.values())]:
        own[""] = lowest.opset
    return lowest


def _lowest(model: ir.Model) -> Lowest:
    types = set(_types(model))
    overloads = any(overload for _, _, overload in model.functions)
    ir_version = max([10 if overloads else MIN_IR_VERSION, *(_NEW_TYPES.get(dtype, 0) for dtype in types)])
    opset = model.opset_imports.get("", MIN_OPSET)
    foreign = any(domain != OPERATOR_DOMAIN for domain, _, _ in model.functions)
    if opset <= MIN_OPSET or opset > NEWEST_OPSET or foreign or types & {ir.DataType.BFLOAT16, *_NEW_TYPES}:
        return Lowest(ir_version, opset, None)
    asked = ((_asked(node, opset), node.op_type) for node in model.graph.all_nodes() if node.domain in ("", "ai.onnx"))
    least, operator = max(asked, default=(MIN_OPSET, ""))
    return Lowest(ir_version, least, operator if least > MIN_OPSET else None)


def _asked(node: ir.Node, opset: int) -> int:
    """The first opset, of those up to the graph's own, in which a node means the same."""
    for at in range(opset, MIN_OPSET, -1):
        named = any(name in node.attributes for name in _ATTRIBUTES.get((at, node.op_type), ()))
        if named or node.op_type in _OTHER.get(at, ()) or _holds(node, _TYPES.get((at, node.op_type), ())):
            return at
    return MIN_OPSET


def _holds(node: ir.Node, types: tuple[ir.DataType, ...]) -> bool:
    """Whether a node reads or gives one of some types, or may: not every graph says all of its types."""
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    return bool(types) and any(value.dtype is None or value.dtype in types for value in values)


def _types(model: ir.Model) -> Iterator[ir.DataType]:
    """The types of a model's values, as far as it says them, and those that its nodes name."""
    for graph in model.graphs():
        values = [*graph.inputs, *graph.initializers.values(), *(out for node in graph for out in node.outputs)]
        yield from (value.dtype for value in values if value.dtype is not None)
        for node in graph:
            named = [node.attributes.get(name) for name in _TYPE_ATTRIBUTES]
            yield from (ir.DataType(a.as_int()) for a in named if a is not None and a.type == ir.AttributeType.INT)
            tensors = [a for a in node.attributes.values() if a.type == ir.AttributeType.TENSOR]
            yield from (a.as_tensor().dtype for a in tensors)
