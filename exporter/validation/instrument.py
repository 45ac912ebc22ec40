"""What makes the inside of a bundle's model visible: what every module gives, and what every router chooses.

The weights stay in the bundle's own data file. ONNX Runtime does not fuse across a graph output, so a model with more
of them is optimized less. That is why the model is also run exactly as it is shipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from eptx._one_line import one_line
from eptx.bundle import Bundle, ModuleOutput
from eptx.errors import BundleError
from eptx.exporter import ops
from eptx.exporter.validation.quantized.float_activations import use_float_activations
from eptx.manifest.names import OPERATOR_DOMAIN
from eptx.runtime.validation.running.instrumented import InstrumentedModel

#: Operator -> its inputs: choice, weights, and, where those are tables, each row's index into them.
_ROUTES = {"PyramidDelta": ("experts", "weights", "route"), "TuckerDelta": ("group", "weights", "")}

#: At most so many nodes stand between an operator and the module's output: a cast, and the product that it feeds.
_BEHIND = 2


def instrument(bundle: Bundle) -> InstrumentedModel:
    """Finds what makes every module's output a graph output.

    Raises:
        BundleError: the graph has no value that the manifest names.
    """
    encoder = bundle.manifest.encoder
    if encoder is None:
        return _instrument(bundle.model, bundle.manifest.modules)
    first = _instrument(bundle.path / encoder.file, encoder.modules)
    main = _instrument(bundle.model, bundle.manifest.modules)
    return replace(main, order=first.order + main.order, encoder=first)


def _instrument(path: Path, modules: Mapping[str, ModuleOutput]) -> InstrumentedModel:
    try:
        model = ir.load(path.absolute())
    except Exception as error:  # protobuf and onnx_ir raise unrelated classes
        raise BundleError(f"{path.name}: not a valid ONNX model: {one_line(error)}") from None
    graph = model.graph
    nodes, outputs = len(graph), len(graph.outputs)
    copy = None
    if use_float_activations(graph):
        copy = _proto(path, model).SerializeToString()
        nodes = len(graph)
    values = {value.name: value for node in graph for value in node.outputs}
    missing = sorted(m for m, place in modules.items() if place.output not in values)
    if missing:
        raise BundleError(f"eptx.json: {missing[0]} is said to be at a value that the graph does not have")
    position = {value: index for index, value in enumerate(values.values())}
    given = {module: values[place.output] for module, place in modules.items()}
    order = sorted(given, key=lambda m: (position[given[m]], modules[m].columns))
    routes = {module: route for module in order if (route := _route(graph, given[module], modules[module].columns))}
    wanted = [*given.values(), *(value for route in routes.values() for value in route)]
    for value in dict.fromkeys(wanted):
        if not (value.is_graph_output() or value.is_graph_input()):
            graph.outputs.append(_typed(value, ir.DataType.FLOAT))
    names = {module: (str(choice.name), str(weights.name)) for module, (choice, weights) in routes.items()}
    whole = _proto(path, model)
    added = type(whole)()
    added.graph.node.extend(whole.graph.node[nodes:])
    added.graph.output.extend(whole.graph.output[outputs:])
    return InstrumentedModel(added.SerializeToString(), tuple(order), names, copy)


def _proto(path: Path, model: ir.Model) -> Any:
    """A model as an ``onnx.ModelProto``. Not all that can be read can be written: a name may not be UTF-8."""
    try:
        return ir.to_proto(model)
    except ir.serde.SerdeError as error:
        reason: BaseException = error
        while reason.__cause__ is not None:  # the outer errors quote the model
            reason = reason.__cause__
        raise BundleError(f"{path.name}: not a valid ONNX model: {one_line(reason)}") from None


def _typed(value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """ONNX wants every graph output typed; the outputs of function bodies are not."""
    if value.type is None:
        value.type = ir.TensorType(dtype)
    return value


def _route(graph: ir.Graph, output: ir.Value, columns: tuple[int, int]) -> tuple[ir.Value, ir.Value] | None:
    """The choice and the weights of each row that the operator behind a module's output was given."""
    node = output.producer()
    for _ in range(_BEHIND):
        if node is not None and node.domain != OPERATOR_DOMAIN and node.inputs and node.inputs[0] is not None:
            output = node.inputs[0]
            node = output.producer()
    index = _module_of(node, output, columns) if node is not None else None
    if node is None or index is None:
        return None
    operator, inputs = ops.module_inputs(node, index)
    if operator == "RoutedPyramidDelta":
        return _router(graph, node, inputs)
    choice, weights, rows = (inputs.get(name) for name in _ROUTES.get(operator, ("", "", "")))
    if choice is None or weights is None:
        return None
    _typed(choice, ir.DataType.INT64)
    _typed(weights, ir.DataType.FLOAT)
    if rows is None:
        return choice, weights
    return _rows(graph, choice, rows), _rows(graph, weights, rows)


def _router(graph: ir.Graph, node: ir.Node, inputs: Mapping[str, ir.Value | None]) -> tuple[ir.Value, ir.Value]:
    """A router node of its own, for an operator with the router inside."""
    names = ("task_id", "x", "task_embedding", "gate_weight", "gate_bias")
    attributes = {"top_k": node.attributes["top_k"].as_int()}
    router = ir.node(
        "PyramidRouter",
        [inputs[name] for name in names],
        attributes=attributes,
        domain=OPERATOR_DOMAIN,
        num_outputs=3,
        name=f"eptx_observed_{len(graph)}",
    )
    for value, dtype in zip(router.outputs, (ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.FLOAT), strict=True):
        value.name, value.type = f"eptx_observed_{len(graph)}_{value.index()}", ir.TensorType(dtype)
    graph.append(router)
    return router.outputs[0], router.outputs[1]


def _module_of(node: ir.Node, output: ir.Value, columns: tuple[int, int]) -> int | None:
    """The index of the module that has these columns of a node's output."""
    packed = ops.packed_columns(node)
    if packed is None:
        return output.index()
    starts = packed.const_value.numpy()[::2].tolist() if packed.const_value is not None else []
    return starts.index(columns[0]) if columns[0] in starts else None


def _rows(graph: ir.Graph, table: ir.Value, rows: ir.Value) -> ir.Value:
    """Each row's entry of a table."""
    node = ir.node("Gather", [table, rows], attributes={"axis": 0}, name=f"eptx_observed_{len(graph)}")
    node.outputs[0].name, node.outputs[0].type = node.name, table.type
    graph.append(node)
    return node.outputs[0]
