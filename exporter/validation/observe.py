"""The bundle's model with its inside made visible: module outputs and routers' choices as further graph outputs.

The bundle is not touched. A copy of the graph is made in memory, whose weights stay in the bundle's own data file;
ONNX Runtime keeps what is a graph output, so its fusions stop at the values that are looked at. That is why
the model is also run exactly as it is shipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from eptx._manifest import TASK_ID
from eptx.bundle import Bundle
from eptx.errors import BundleError
from eptx.exporter import ops
from eptx.runtime._kernels import choose_kernels, register
from eptx.runtime._one_line import one_line
from eptx.runtime._providers import execution_providers, onnxruntime, session_options
from eptx.runtime.session import Session

#: operator -> its inputs that hold the rows' choice and weights, and the one that says which row of them is whose
_ROUTES = {"PyramidDelta": ("experts", "weights", "route"), "TuckerDelta": ("group", "weights", "")}


@dataclass(frozen=True)
class Route:
    """What one module's operator was told to use: experts [n, K] or group [n], and weights [n, K] or [n, t]."""

    choice: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Observation:
    """One run of the model.

    Attributes:
        outputs: the graph's own outputs.
        modules: module -> its columns of its value, [.., out].
        routes: module -> its route, where the model has operators of its own.
    """

    outputs: dict[str, np.ndarray]
    modules: dict[str, np.ndarray]
    routes: dict[str, Route]


@dataclass(frozen=True)
class Graph:
    """A copy of the model with more outputs.

    Attributes:
        model: the serialised graph; its weights are in the bundle's folder.
        order: the modules in the order in which the graph computes them.
        routes: module -> names of the values that hold its choice and weights.
    """

    model: bytes
    order: tuple[str, ...]
    routes: Mapping[str, tuple[str, str]]


def observable(bundle: Bundle) -> Graph:
    """Makes every module's output a graph output.

    Raises:
        BundleError: the graph has no value that the manifest names.
    """
    try:
        model = ir.load(bundle.model)
    except Exception as error:  # protobuf and onnx_ir raise unrelated classes
        raise BundleError(f"{bundle.model.name}: not a valid ONNX model: {one_line(error)}") from None
    graph = model.graph
    values = {value.name: value for node in graph for value in node.outputs}
    missing = sorted(m for m, place in bundle.manifest.modules.items() if place.output not in values)
    if missing:
        raise BundleError(f"eptx.json: {missing[0]} is said to be at a value that the graph does not have")
    position = {value: index for index, value in enumerate(values.values())}
    modules = bundle.manifest.modules
    outputs = {module: values[place.output] for module, place in modules.items()}
    order = sorted(outputs, key=lambda m: (position[outputs[m]], modules[m].columns))
    routes = {module: route for module in order if (route := _route(graph, outputs[module], modules[module].columns))}
    wanted = [*outputs.values(), *(value for route in routes.values() for value in route)]
    for value in dict.fromkeys(wanted):
        if not value.is_graph_output():
            graph.outputs.append(_typed(value, ir.DataType.FLOAT))
    names = {module: (str(choice.name), str(weights.name)) for module, (choice, weights) in routes.items()}
    return Graph(ir.to_proto(model).SerializeToString(), tuple(order), names)


def _typed(value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """ONNX wants every graph output typed; what an operator's body gives is told by what it is."""
    if value.type is None:
        value.type = ir.TensorType(dtype)
    return value


def _route(graph: ir.Graph, output: ir.Value, columns: tuple[int, int]) -> tuple[ir.Value, ir.Value] | None:
    """The choice and weights that the operator of a module's output was given for each row."""
    node = output.producer()
    if node is not None and node.domain != ops.DOMAIN and node.inputs and node.inputs[0] is not None:
        output = node.inputs[0]  # a product whose input the operator updates
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
    """What a router that is within an operator says, by itself."""
    names = ("task_id", "x", "task_embedding", "gate_weight", "gate_bias")
    attributes = {"top_k": node.attributes["top_k"].as_int()}
    router = ir.node(
        "PyramidRouter", [inputs[name] for name in names], attributes=attributes, domain=ops.DOMAIN, num_outputs=3
    )
    for value, dtype in zip(router.outputs, (ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.FLOAT), strict=True):
        value.name, value.type = f"eptx_observed_{len(graph)}_{value.index()}", ir.TensorType(dtype)
    graph.append(router)
    return router.outputs[0], router.outputs[1]


def _module_of(node: ir.Node, output: ir.Value, columns: tuple[int, int]) -> int | None:
    """Which of a node's modules has these columns of an output."""
    packed = ops.packed_columns(node)
    if packed is None:
        return output.index()
    starts = packed.const_value.numpy()[::2].tolist() if packed.const_value is not None else []
    return starts.index(columns[0]) if columns[0] in starts else None


def _rows(graph: ir.Graph, table: ir.Value, rows: ir.Value) -> ir.Value:
    """What each row of the batch has in a table."""
    node = ir.node("Gather", [table, rows], attributes={"axis": 0})
    node.outputs[0].name, node.outputs[0].type = f"eptx_observed_{len(graph)}", table.type
    graph.append(node)
    return node.outputs[0]


class Shipped:
    """The bundle as it is served, on one provider."""

    def __init__(self, bundle: Bundle, provider: str) -> None:
        self._session = Session(bundle, provider)

    def run(self, arrays: Mapping[str, np.ndarray], ids: np.ndarray | None) -> dict[str, np.ndarray]:
        """The graph outputs; `ids` are the bundle's task ids, None where it takes none."""
        return dict(self._session.run({**arrays, **({} if ids is None else {TASK_ID: ids})}))


class Observed:
    """The observable copy, on one provider."""

    def __init__(self, bundle: Bundle, graph: Graph, provider: str) -> None:
        self._bundle, self._graph = bundle, graph
        options = session_options(bundle)
        register(options, choose_kernels(bundle, provider))
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(bundle.path))
        try:
            self._session: Any = onnxruntime().InferenceSession(
                graph.model, options, providers=execution_providers(provider), enable_fallback=0
            )
        except Exception as error:  # ONNX Runtime has one class per status code and no common one
            raise BundleError(
                f"{bundle.model.name}: ONNX Runtime does not load it for observation: {one_line(error)}"
            ) from None
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, arrays: Mapping[str, np.ndarray], ids: np.ndarray | None) -> Observation:
        """All there is to see; `ids` are the bundle's task ids, None where it takes none."""
        feeds = {**arrays, **({} if ids is None else {TASK_ID: ids})}
        values = dict(zip(self._names, self._session.run(self._names, feeds), strict=True))
        manifest = self._bundle.manifest
        modules = {
            name: values[place.output][..., place.columns[0] : place.columns[1]]
            for name, place in manifest.modules.items()
        }
        routes = {name: Route(values[a], values[b]) for name, (a, b) in self._graph.routes.items()}
        return Observation({spec.name: values[spec.name] for spec in manifest.outputs}, modules, routes)
