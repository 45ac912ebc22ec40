"""Making a graph independent of the machine, process and library that wrote it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

import onnx_ir as ir

from eptx.exporter.bases.products.products import find_products

_SCOPES = "pkg.torch.onnx.name_scopes"
_TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_SYMBOL = re.compile(r"[^\W\d]\w*")


def tidy(model: ir.Model, axes: Mapping[str, Mapping[int, str]] | None = None) -> frozenset[str]:
    """Names products after their modules, free dims ``batch`` and ``length``, and drops the exporters'
    metadata.

    A product's node becomes ``/<module>/MatMul``, much as PyTorch's first exporter named it, and its weight
    ``<module>.weight``, which is what the transformers folder calls it (in whichever orientation). The
    metadata that PyTorch's exporter leaves, module scopes and stack traces with the paths of a machine, is
    gone afterwards.

    Args:
        model: changed in place.
        axes: the beginning of inputs' names -> the names of their further free axes.

    Returns:
        the modules that the products are of.
    """
    modules = _name_products(model.graph)
    _name_dims(model.graph, axes or {})
    _drop_metadata(model)
    return modules


def _name_products(graph: ir.Graph) -> frozenset[str]:
    nodes = {node.name for node in graph if node.name}
    values = set(graph.initializers) | {value.name for value in graph.inputs}
    values |= {value.name for node in graph for value in node.outputs if value.name}
    modules = set()
    for product in find_products(graph):
        module = _module(product.node)
        if module:
            product.node.name = _free(f"/{module}/{product.node.op_type}", nodes)
            nodes.add(product.node.name)
        if module and f"{module}.weight" not in values:
            product.weight.name = f"{module}.weight"
            values.add(product.weight.name)
        modules.add(str(product.node.name).strip("/").rpartition("/")[0])  # `fuse` may have named it so before
    return frozenset(modules)


def _module(node: ir.Node) -> str:
    """The module that a node comes from, the last but one of its scopes; "" if unknown."""
    try:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ""
    known = isinstance(scopes, list) and len(scopes) > 1 and isinstance(scopes[-2], str)
    return scopes[-2] if known else ""


def _free(name: str, taken: set[str]) -> str:
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def _name_dims(graph: ir.Graph, further: Mapping[str, Mapping[int, str]]) -> None:
    """Gives the free axes of the inputs their names, and renames them wherever the graph mentions them."""
    renamed: dict[str, str] = {}
    has_past = any(value.name and value.name.startswith("past") for value in graph.inputs)
    for value in graph.inputs:
        if value.shape is None or not len(value.shape):
            continue
        axes = {0: "batch"}
        if len(value.shape) == 2 and value.name in (_TEXT_INPUTS[:1] if has_past else _TEXT_INPUTS):
            axes[1] = "length"
        axes |= next((named for start, named in further.items() if (value.name or "").startswith(start)), {})
        dims = list(value.shape)
        for axis, name in axes.items():
            dim = dims[axis]
            if isinstance(dim, ir.SymbolicDim):
                if dim.value is not None and _SYMBOL.fullmatch(dim.value):
                    renamed[dim.value] = name
                dims[axis] = ir.SymbolicDim(name)
        value.shape = ir.Shape(dims)
    values = [*graph.inputs, *graph.outputs]
    for node in graph.all_nodes():
        values.extend(node.outputs)
    for value in values:
        if value.shape is not None and any(isinstance(dim, ir.SymbolicDim) for dim in value.shape):
            value.shape = ir.Shape([_renamed(dim, renamed) for dim in value.shape])


def _renamed(dim: int | ir.SymbolicDim, names: dict[str, str]) -> int | ir.SymbolicDim:
    if not isinstance(dim, ir.SymbolicDim) or dim.value is None:
        return dim
    return ir.SymbolicDim(_SYMBOL.sub(lambda match: names.get(match[0], match[0]), dim.value))


def _drop_metadata(model: ir.Model) -> None:
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.doc_string = model.graph.doc_string = None
    # the version alone: GenAI's builder adds the commit of whatever repository its folder lies in, PyTorch its build
    model.producer_version = (model.producer_version or "").partition("+")[0] or None
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            value.doc_string = None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
