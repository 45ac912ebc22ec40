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
from eptx.runtime._providers import execution_providers, one_line, onnxruntime, session_options
from eptx.runtime.session import Session

_DELTAS = {"PyramidDelta": (2, 3), "TuckerDelta": (2, 3)}


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
    position: dict[ir.Node | None, int] = {node: index for index, node in enumerate(graph)}
    producers = {m: values[place.output].producer() for m, place in bundle.manifest.modules.items()}
    order = sorted(producers, key=lambda m: (position.get(producers[m], -1), bundle.manifest.modules[m].columns))
    routes = {}
    for module, node in producers.items():
        found = _delta(node, bundle.manifest.modules[module].columns)
        if found is not None:
            routes[module] = found
    wanted = [place.output for place in bundle.manifest.modules.values()]
    wanted += [name for pair in routes.values() for name in pair]
    for name in dict.fromkeys(wanted):
        if name in values and not values[name].is_graph_output():
            graph.outputs.append(_typed(values[name], ir.DataType.FLOAT))
    return Graph(ir.to_proto(model).SerializeToString(), tuple(order), routes)


def _typed(value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """ONNX wants every graph output typed; what an operator's body gives is told by what it is."""
    if value.type is None:
        value.type = ir.TensorType(dtype)
    return value


def _delta(node: ir.Node | None, columns: tuple[int, int]) -> tuple[str, str] | None:
    """Names of the choice and weights of the operator that gives a module's output, through a packed Concat."""
    if node is not None and node.op_type == "Concat":
        node = _at_column(node, columns[0])
    if node is None or node.domain != ops.DOMAIN or node.op_type not in _DELTAS:
        return None
    first, second = (node.inputs[i] for i in _DELTAS[node.op_type])
    if first is None or second is None or first.name is None or second.name is None:
        return None
    _typed(first, ir.DataType.INT64)
    _typed(second, ir.DataType.FLOAT)
    return first.name, second.name


def _at_column(concat: ir.Node, start: int) -> ir.Node | None:
    """What gives the part of a packed product that begins at a column."""
    producers = [value.producer() if value is not None else None for value in concat.inputs]
    for node in producers:
        if node is None or not node.inputs:
            return None
        split = node if node.op_type == "Split" else node.inputs[0].producer() if node.inputs[0] is not None else None
        if split is not None and split.op_type == "Split" and split.inputs[1] is not None:
            break
    else:
        return None
    assert split.inputs[1] is not None
    lengths = split.inputs[1].const_value
    if lengths is None or lengths.size != len(producers):
        return None
    starts = np.cumsum(lengths.numpy()) - lengths.numpy()
    return next((node for begin, node in zip(starts, producers, strict=True) if begin == start), None)


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
