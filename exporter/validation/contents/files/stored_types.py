"""The types of stored weights, compared with the ``precision`` and the products that ``eptx.json`` names.

The types are read here anew, and not by `quantized.stored`: two readers that agree are a check, one is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from eptx.bundle import Bundle, Manifest
from eptx.manifest.names import FLOAT_PRECISIONS, OPERATOR_DOMAIN
from eptx.runtime.validation.check import Check

#: Smaller weights, and vectors, may have any type.
_SMALL = 256
_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_FLOAT = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
_INTEGER = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4)
#: Inputs of routers, as the operators' function bodies name them: float32 in every precision (docs/calibration.md).
_ROUTER = ("task_embedding", "gate_weight", "gate_bias", "centroids", "gate")
#: Precision -> the schemes, one of which all of its products have.
_UNIFORM = {
    "int8": ("int8", "int8-blocks", "int8 weights alone"),
    "int8-static": ("int8-static",),
    "int4": ("int4-blocks",),
}
_KEEPS = ("Transpose", "Identity", "Reshape", "Cast", "DequantizeLinear")


#: Weights of the ONNX file that the user gave as the base: name -> type.
_Kept = Mapping[str, ir.DataType | None]


@dataclass(frozen=True)
class _Graph:
    """One graph of a bundle; the names of the encoder's nodes have a prefix in ``eptx.json``."""

    prefix: str
    model: ir.Model

    def weights(self) -> Iterator[ir.Value]:
        """Matrices and tensors of more axes, of some size, in a type that weights are stored in."""
        for graph in self.model.graphs():
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.size < _SMALL or len(tensor.shape) < 2:
                    continue
                if tensor.dtype in (*_HALF, *_FLOAT, *_INTEGER):
                    yield value

    def routes(self, value: ir.Value) -> bool:
        """Whether a router reads a tensor."""
        return any(self._formal(node, index) in _ROUTER for node, index in value.uses())

    def _formal(self, node: ir.Node, index: int) -> str | None:
        body = self.model.functions.get((node.domain, node.op_type, node.overload))
        inputs = body.inputs if body is not None and node.domain == OPERATOR_DOMAIN else ()
        # an operator of several modules numbers each module's inputs
        return (inputs[index].name or "").rstrip("_0123456789") if index < len(inputs) else None


def compare_stored_types(bundle: Bundle, models: Mapping[str, ir.Model], given: ir.Model | None) -> list[Check]:
    """Compares the types of a bundle's weights with its precision.

    Args:
        bundle: the bundle.
        models: file -> graph, ``model.onnx`` and perhaps an encoder's.
        given: the ONNX file that the user gave as the base: weights are stored as they are there.
    """
    manifest = bundle.manifest
    graphs = [_Graph("" if name == "model.onnx" else f"{name.removesuffix('.onnx')}:", models[name]) for name in models]
    kept = {} if given is None else {name: value.dtype for name, value in given.graph.initializers.items()}
    checks = [Check("eptx.json: precision", "compared", _wrong_precision(manifest, graphs, kept))]
    if manifest.quantization is not None:
        products, tables = manifest.quantization.products, manifest.quantization.embeddings
        checks.append(Check("eptx.json: quantization.products", "compared", _wrong_products(products, graphs, kept)))
        checks.append(Check("eptx.json: quantization.embeddings", "compared", _wrong_named(tables, graphs)))
    return checks


def _wrong_precision(manifest: Manifest, graphs: list[_Graph], kept: _Kept) -> str | None:
    precision = manifest.precision
    if precision in FLOAT_PRECISIONS:
        if manifest.quantization is not None:
            return f"says {precision}, and quantization is not empty"
        # on CPUs fp16 only stores weights, so the base's file is stored anew
        return _wrong_plain(precision, graphs, {} if (precision, manifest.provider) == ("fp16", "cpu") else kept)
    said = manifest.quantization.products if manifest.quantization is not None else {}
    kinds = {_kind(node) for graph in graphs for node in graph.model.graph} - {None, "fp32", "fp16"}
    if not kinds and not (precision == "mixed" and said):  # a search may have left all products as they are
        return f"says {precision}, and no product is quantized"
    named = set(said.values())
    allowed = _UNIFORM.get(precision)
    if allowed is not None and named and (len(named) > 1 or not named <= set(allowed)):
        return f"says {precision}; quantization names {', '.join(sorted(named))}"
    if allowed is not None and not named and not kinds & set(allowed):
        return f"says {precision}; the products are {', '.join(sorted(map(str, kinds)))}"
    if kept and not said:
        return None  # the user's own graph was quantized before; the adapter stays float32
    found = [value for graph in graphs for value in graph.weights() if _is_wide(graph, value, builder=not said)]
    wide = next((value for value in found if value.name not in kept), None)
    return None if wide is None else f"says {precision}; {wide.name} is {_type(wide)}"


def _wrong_plain(precision: str, graphs: list[_Graph], kept: _Kept) -> str | None:
    refused = (*_HALF, *_INTEGER) if precision == "fp32" else (*_FLOAT, *_INTEGER)
    for graph in graphs:
        for value in graph.weights():
            if value.dtype not in refused or kept.get(str(value.name)) == value.dtype:
                continue
            if value.dtype in _FLOAT and (graph.routes(value) or value.is_graph_output()):
                continue
            return f"says {precision}; {value.name} is {_type(value)}"
    half = any(value.dtype in _HALF for graph in graphs for value in graph.weights())
    return "says fp16; no weight is float16" if precision == "fp16" and not half else None


def _is_wide(graph: _Graph, value: ir.Value, *, builder: bool) -> bool:
    """Whether a weight is float32 but should not be: the adapter's, or a product's where all are quantized at once."""
    if value.dtype not in _FLOAT or graph.routes(value):
        return False
    readers = list(value.consumers())
    if any(node.domain == OPERATOR_DOMAIN for node in readers):
        return True
    return builder and any(node.op_type in ("MatMul", "Gemm") for node in readers)


def _wrong_products(said: Mapping[str, str], graphs: list[_Graph], kept: _Kept) -> str | None:
    wrong = _wrong_named(said, graphs)
    if wrong is not None or not said:
        return wrong
    for graph in graphs:
        for node in graph.model.graph:
            kind = _kind(node)
            weight = _weight(node)
            if kind in (None, "fp32", "fp16") or f"{graph.prefix}{node.name}" in said:
                continue
            if weight is None or weight.name not in kept:
                return f"does not name {node.name}, which is {kind}"
    return None


def _wrong_named(said: Mapping[str, str], graphs: list[_Graph]) -> str | None:
    """Checks that every named node is in the graph, and stored as its scheme says."""
    nodes = {f"{graph.prefix}{node.name}": node for graph in graphs for node in graph.model.graph}
    for name, scheme in said.items():
        if name not in nodes:
            return f"names {name}, which is not in the graph"
        kind = _kind(nodes[name]) or _table(nodes[name])
        if kind != scheme:
            return f"says that {name} is {scheme}; it is {kind or 'no product with a weight'}"
    return None


def _kind(node: ir.Node) -> str | None:
    """The scheme of the product whose last node this is; None if it is none."""
    if node.op_type == "MatMulNBits":
        return f"int{node.attributes['bits'].as_int()}-blocks"
    if node.op_type == "Mul":
        product = next((above for value in node.inputs if (above := _above(value, "Cast", "MatMulInteger"))), None)
        return None if product is None or _weight(product) is None else "int8"
    if node.op_type not in ("MatMul", "Gemm", "FusedMatMul"):
        return None
    weight = _weight(node)
    if weight is None:
        return None
    if weight.dtype in _INTEGER:
        static = any(_above(value, "DequantizeLinear", "QuantizeLinear") for value in node.inputs)
        return "int8-static" if static else "int8 weights alone"
    return "fp16" if weight.dtype in _HALF else "fp32"


def _table(node: ir.Node) -> str | None:
    """The scheme of the look-up whose last node this is; None if it is none."""
    if node.op_type == "Mul":
        gather = next((above for value in node.inputs if (above := _above(value, "Cast", "Gather"))), None)
        return "int8" if gather is not None and _dtype(gather.inputs[0]) in _INTEGER else None
    gather = node if node.op_type == "Gather" else _maker(node.inputs[0] if node.inputs else None)
    if gather is None or gather.op_type != "Gather":
        return None
    found = _root(gather.inputs[0])
    return None if found is None else "fp16" if found.dtype in _HALF else "fp32" if found.dtype in _FLOAT else None


def _weight(node: ir.Node) -> ir.Value | None:
    """The initializer [in, out] or [out, in] that a product multiplies by."""
    roots = [root for value in node.inputs[:2] if (root := _root(value)) is not None]
    return next((root for root in roots if root.const_value is not None and len(root.const_value.shape) == 2), None)


def _root(value: ir.Value | None) -> ir.Value | None:
    """The initializer behind a value, before transposes and casts."""
    while value is not None and not value.is_initializer():
        maker = value.producer()
        value = maker.inputs[0] if maker is not None and maker.op_type in _KEEPS else None
    return value


def _above(value: ir.Value | None, *kinds: str) -> ir.Node | None:
    """The last of a chain of producers above a value, if they are of these types."""
    node = None
    for kind in kinds:
        node = _maker(value)
        if node is None or node.op_type != kind:
            return None
        value = node.inputs[0]
    return node


def _maker(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _dtype(value: ir.Value | None) -> ir.DataType | None:
    return None if value is None else value.dtype


def _type(value: ir.Value) -> str:
    return str(value.dtype).lower() if value.dtype is not None else "of no type"
