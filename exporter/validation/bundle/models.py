"""A bundle's models answering batches: as they are shipped, or with their inside visible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eptx.bundle import Bundle, Manifest, ModuleOutput
from eptx.errors import BundleError
from eptx.exporter.validation.bundle.backends import KernelsRefusedError, Way
from eptx.exporter.validation.bundle.decode_loop import Calls, Run
from eptx.exporter.validation.bundle.instrumented import Graph as Shown
from eptx.exporter.validation.inputs.batch import Batch
from eptx.manifest.names import USED
from eptx.runtime.ort.model import OrtModel
from eptx.runtime.ort.providers import execution_providers, onnxruntime
from eptx.runtime.ort.sessions import wrapped


@dataclass(frozen=True)
class Route:
    """What one module's operator was told to use: experts [n, K] or group [n], and weights [n, K] or [n, t]."""

    choice: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Observation:
    """One batch.

    Attributes:
        outputs: the graph's own outputs.
        modules: module -> its columns of its value, [.., out].
        routes: for every call, module -> its route, where the model has operators of its own.
    """

    outputs: dict[str, np.ndarray]
    modules: dict[str, np.ndarray]
    routes: list[dict[str, Route]]


class Model:
    """A model of a bundle that answers batches.

    Args:
        manifest: of the bundle.
        run: one call of the model.
        encode: one call of the encoder, where there is one.
        graph: what the model shows, if it is observed.
    """

    def __init__(self, manifest: Manifest, run: Run, encode: Run | None = None, graph: Shown | None = None) -> None:
        self._manifest, self._run, self._encode, self._graph = manifest, run, encode, graph

    def run(self, batch: Batch, ids: np.ndarray | None) -> Observation:
        """All there is to see; `ids` are the bundle's task ids, None where it takes none."""
        calls = Calls(self._manifest, batch, ids)
        found = calls.run(self._run, self._encode)
        outputs = {
            spec.name: calls.joined(found, spec.name) for spec in self._manifest.outputs if spec.name in found[0]
        }
        used = {name: value for name, value in calls.encoded.items() if name.endswith(USED)}
        if self._graph is None:
            return Observation(outputs | used, {}, [])
        places = self._manifest.modules
        modules = _modules({p.output: calls.joined(found, p.output) for p in places.values()}, places)
        routes = [_routes(call, self._graph, places) for call in found]
        if self._graph.encoder is not None and self._manifest.encoder is not None:
            first = self._manifest.encoder.modules
            modules |= _modules(calls.encoded, first)
            routes[0] |= _routes(calls.encoded, self._graph.encoder, first)
        return Observation(outputs | used, modules, routes)

    def answer(self, batch: Batch, ids: np.ndarray | None) -> Batch:
        """The batch with the tokens that the model chooses."""
        calls = Calls(self._manifest, batch, ids)
        calls.run(self._run, self._encode)
        return calls.answered()


def _modules(values: Mapping[str, np.ndarray], places: Mapping[str, ModuleOutput]) -> dict[str, np.ndarray]:
    return {name: values[place.output][..., slice(*place.columns)] for name, place in places.items()}


def _routes(values: Mapping[str, np.ndarray], graph: Shown, places: Mapping[str, ModuleOutput]) -> dict[str, Route]:
    return {
        name: Route(_numbered(values[a], places[name].unused_experts), values[b])
        for name, (a, b) in graph.routes.items()
        if a in values and b in values
    }


def _numbered(choice: np.ndarray, unused: Sequence[int]) -> np.ndarray:
    """Experts as the adapter numbers them, from numbers among those that the model has."""
    if not unused:
        return choice
    kept = np.setdiff1d(np.arange(int(choice.max()) + 1 + len(unused)), unused)
    return np.asarray(kept[choice])


def shipped(bundle: Bundle, way: Way) -> Model:
    """The bundle exactly as it is served, one way.

    Raises:
        KernelsRefusedError: the way is by kernels, and they do not take this model.
        BundleError: ONNX Runtime does not load it, or it is not what ``eptx.json`` says.
        NotSupportedError: the provider does not start on this machine.
    """
    try:
        run = _run_of(OrtModel(bundle, way.provider, None, way.session_options(bundle)).open())
    except KernelsRefusedError:
        raise
    except BundleError as error:
        raise _refused(way, str(error)) from None
    encoder = bundle.manifest.encoder
    encode = _run_of(_open(bundle, str(bundle.path / encoder.file), way)) if encoder is not None else None
    return Model(bundle.manifest, run, encode)


def observed(bundle: Bundle, graph: Shown, way: Way) -> Model:
    """The observable copy, one way."""
    encode = _run_of(_open(bundle, graph.encoder.model, way)) if graph.encoder is not None else None
    return Model(bundle.manifest, _run_of(_open(bundle, graph.model, way)), encode, graph)


def sharpened(bundle: Bundle, graph: Shown, way: Way) -> Model:
    """The copy that differs from what is shipped in nothing but what its activations are rounded to."""
    encoder, encode = bundle.manifest.encoder, None
    if encoder is not None and graph.encoder is not None:
        encode = _run_of(_open(bundle, graph.encoder.sharp or str(bundle.path / encoder.file), way))
    return Model(bundle.manifest, _run_of(_open(bundle, graph.sharp or str(bundle.model), way)), encode)


def _open(bundle: Bundle, model: bytes | str, way: Way) -> Any:
    options = way.session_options(bundle)
    if isinstance(model, bytes):
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(bundle.path))
    try:
        return onnxruntime().InferenceSession(
            model, options, providers=execution_providers(way.provider), enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime has one class per status code and no common one
        what = f"{bundle.model.name}: ONNX Runtime does not load it for observation"
        found = wrapped(error, what, BundleError)
        raise _refused(way, str(found)) if isinstance(found, BundleError) else found from None


def _refused(way: Way, said: str) -> BundleError:
    """What a model that does not load means: with kernels, that they do not take it, as the functions may."""
    return BundleError(said) if way.kernels.library is None else KernelsRefusedError(said)


def _run_of(session: Any) -> Run:
    names = [output.name for output in session.get_outputs()]

    def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return dict(zip(names, session.run(names, dict(feeds)), strict=True))
        except Exception as error:  # as above
            raise wrapped(error, "the model does not run", BundleError) from None

    return run


def run_graph(bundle: Bundle, model: bytes, way: Way) -> Run:
    """What calls a copy of one of a bundle's graphs, whose weights stay in the bundle's folder.

    Raises:
        BundleError: ONNX Runtime does not load it.
    """
    return _run_of(_open(bundle, model, way))
