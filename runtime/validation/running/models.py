"""A bundle's models, opened in ONNX Runtime: as they are shipped, or with their inside visible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eptx.bundle import Bundle, Manifest, ModuleOutput
from eptx.errors import BundleError
from eptx.manifest.names import USED
from eptx.runtime.ort.model import OrtModel
from eptx.runtime.ort.sessions import load_error, open_session, wrapped
from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.running.backends import Backend, KernelsRefusedError
from eptx.runtime.validation.running.decode_loop import DecodeLoop, Run
from eptx.runtime.validation.running.instrumented import InstrumentedModel


@dataclass(frozen=True)
class Route:
    """The route that one module's operator was given: experts [n, K] or group [n], and weights [n, K] or [n, t]."""

    choice: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Observation:
    """What a model gave for one batch.

    Attributes:
        outputs: output -> array.
        modules: module -> its output [.., out]; empty unless the model is instrumented.
        routes: for every call, module -> its route, where the model has operators of its own.
    """

    outputs: dict[str, np.ndarray]
    modules: dict[str, np.ndarray]
    routes: list[dict[str, Route]]


class BundleModel:
    """A model of a bundle that runs batches.

    Args:
        manifest: of the bundle.
        run: one call of the model.
        encode: one call of the encoder, where there is one.
        instrumented: the graph that the model runs, if its inside is visible.
        nodes: how many nodes run on which provider, where that is known.
    """

    def __init__(
        self,
        manifest: Manifest,
        run: Run,
        encode: Run | None = None,
        instrumented: InstrumentedModel | None = None,
        nodes: Mapping[str, int] | None = None,
    ) -> None:
        self.nodes = nodes
        self._manifest, self._run, self._encode, self._graph = manifest, run, encode, instrumented

    def run(self, batch: Batch) -> Observation:
        """Runs a batch.

        Raises:
            BundleError: the bundle lacks a task of the batch, or the model does not run.
        """
        loop = DecodeLoop(self._manifest, batch)
        found = loop.run(self._run, self._encode)
        outputs = {spec.name: loop.joined(found, spec.name) for spec in self._manifest.outputs if spec.name in found[0]}
        used = {name: value for name, value in loop.encoded.items() if name.endswith(USED)}
        if self._graph is None:
            return Observation(outputs | used, {}, [])
        places = self._manifest.modules
        modules = {name: loop.joined(found, p.output, slice(*p.columns)) for name, p in places.items()}
        routes = [_routes(call, self._graph, places) for call in found]
        if self._graph.encoder is not None and self._manifest.encoder is not None:
            first = self._manifest.encoder.modules
            modules |= _modules(loop.encoded, first)
            routes[0] |= _routes(loop.encoded, self._graph.encoder, first)
        return Observation(outputs | used, modules, routes)

    def answer(self, batch: Batch) -> Batch:
        """The batch with the tokens that the model chooses."""
        loop = DecodeLoop(self._manifest, batch)
        loop.run(self._run, self._encode)
        return loop.answered()


def _modules(values: Mapping[str, np.ndarray], places: Mapping[str, ModuleOutput]) -> dict[str, np.ndarray]:
    return {name: values[place.output][..., slice(*place.columns)] for name, place in places.items()}


def _routes(
    values: Mapping[str, np.ndarray], graph: InstrumentedModel, places: Mapping[str, ModuleOutput]
) -> dict[str, Route]:
    return {
        name: Route(_numbered(values[a], places[name].unused_experts), values[b])
        for name, (a, b) in graph.routes.items()
        if a in values and b in values
    }


def _numbered(choice: np.ndarray, unused: Sequence[int]) -> np.ndarray:
    """Expert numbers of the adapter, given numbers among the experts that the model kept."""
    if not unused:
        return choice
    kept = np.setdiff1d(np.arange(int(choice.max()) + 1 + len(unused)), unused)
    return np.asarray(kept[choice])


def open_shipped(bundle: Bundle, backend: Backend) -> BundleModel:
    """The bundle exactly as it is served.

    Raises:
        KernelsRefusedError: the native kernels do not take this model.
        BundleError: ONNX Runtime does not load it, or it is not what ``eptx.json`` says.
        NotSupportedError: the provider does not start on this machine, does not load the model, or takes no node of it.
    """
    try:
        model = OrtModel(bundle, backend.provider, None, backend.session_options(bundle))
        run = _run_of(model.open())
    except KernelsRefusedError:
        raise
    except BundleError as error:
        raise _refused(backend, str(error)) from None
    encoder = bundle.manifest.encoder
    encode = run_graph(bundle, bundle.path / encoder.file, backend) if encoder is not None else None
    return BundleModel(bundle.manifest, run, encode, nodes=model.nodes)


def open_instrumented(bundle: Bundle, instrumented: InstrumentedModel, backend: Backend) -> BundleModel:
    """The copy that shows its inside."""
    encoder, encode = bundle.manifest.encoder, None
    if encoder is not None and instrumented.encoder is not None:
        encode = run_graph(bundle, instrumented.encoder.observed(bundle.path / encoder.file), backend)
    run = run_graph(bundle, instrumented.observed(bundle.model), backend)
    return BundleModel(bundle.manifest, run, encode, instrumented)


def open_with_float_activations(bundle: Bundle, instrumented: InstrumentedModel, backend: Backend) -> BundleModel:
    """The bundle as it is shipped, except that no activation is rounded to 8 bits."""
    encoder, encode = bundle.manifest.encoder, None
    if encoder is not None and instrumented.encoder is not None:
        copy = instrumented.encoder.float_activations
        encode = run_graph(bundle, copy or bundle.path / encoder.file, backend)
    return BundleModel(
        bundle.manifest, run_graph(bundle, instrumented.float_activations or bundle.model, backend), encode
    )


def run_graph(bundle: Bundle, model: bytes | Path, backend: Backend) -> Run:
    """Opens one of a bundle's graphs, or a copy of one whose weights stay in the bundle's folder.

    Raises:
        KernelsRefusedError: the native kernels do not take this model.
        BundleError: ONNX Runtime does not load it.
        NotSupportedError: the provider does not start on this machine, does not load the model, or takes no node of it.
    """
    options = backend.session_options(bundle)
    if isinstance(model, bytes):
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(bundle.path))
    try:
        return _run_of(open_session(model, options, backend.provider))
    except Exception as error:  # ONNX Runtime has one class per status code and no common one
        what = f"{bundle.model.name}: ONNX Runtime does not load it on provider {backend.provider} for observation"
        found = wrapped(error, what, load_error(backend.provider))
        raise _refused(backend, str(found)) if isinstance(found, BundleError) else found from None


def _refused(backend: Backend, message: str) -> BundleError:
    """A model that kernels do not take may still run by its functions, so that is an error of its own."""
    return BundleError(message) if backend.kernels.library is None else KernelsRefusedError(message)


def _run_of(session: Any) -> Run:
    names = [output.name for output in session.get_outputs()]

    def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return dict(zip(names, session.run(names, dict(feeds)), strict=True))
        except Exception as error:  # as above
            raise wrapped(error, "the model does not run", BundleError) from None

    return run
