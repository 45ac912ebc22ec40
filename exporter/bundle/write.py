"""Writing a bundle: the model, what runs it needs from the base folder, the manifest and the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from eptx._one_line import one_line
from eptx._version import __version__
from eptx.bundle import (
    Bundle,
    BundleWriter,
    Component,
    Manifest,
    ModuleOutput,
    Operators,
    Quantization,
    Sources,
    Task,
    TensorSpec,
)
from eptx.bundle.genai_config import GENAI_CONFIG
from eptx.bundle.origin import Origin, write_origin
from eptx.errors import BaseModelError, NotSupportedError, UsageError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.label_names import Names
from eptx.exporter.adapters.routing.route import FrozenRoutes
from eptx.exporter.bases import BaseGraph, genai_config
from eptx.exporter.bases.max_length import positive, text_config
from eptx.exporter.bases.products.nbits import is_nbits
from eptx.exporter.bases.products.quantized import own_precision
from eptx.exporter.bundle.card import model_card
from eptx.exporter.bundle.clean import clean
from eptx.exporter.bundle.image import PROCESSOR_FILES, image_settings, processor_files
from eptx.exporter.bundle.labels import label_names, told_names
from eptx.exporter.bundle.least_release import fit_oldest
from eptx.exporter.bundle.problem import own_labels, problem_type
from eptx.exporter.bundle.record import write_record
from eptx.exporter.bundle.text import SENTENCE_SETTINGS, text_settings
from eptx.exporter.bundle.tokenizer import FILES as TOKENIZER_FILES
from eptx.exporter.bundle.tokenizer import tokenizer_files
from eptx.exporter.graph.edited import EditedGraph
from eptx.exporter.methods.method import method_of
from eptx.exporter.options import ExportOptions, StoredPrecision
from eptx.manifest.names import BASE_TASK, LOGITS, OPERATOR_DOMAIN, TASK_ID

#: Smaller tensors are kept in the model: ONNX Runtime resolves the path of the file beside it, opens it and maps it
#: anew for every tensor that lies there, which took 4 ms of a session of MiniLM with EPT (212 tensors).
_SMALL = 16384
#: What is copied from the base besides its tokenizer.
CONFIG = "config.json"
COMPANIONS = (CONFIG, "generation_config.json", *PROCESSOR_FILES, *SENTENCE_SETTINGS)
_DTYPES = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
    ir.DataType.DOUBLE: "float64",
    ir.DataType.INT64: "int64",
    ir.DataType.INT32: "int32",
    ir.DataType.BOOL: "bool",
}


@dataclass(frozen=True)
class Inherited:
    """What a bundle knows of its export that no graph shows, where it is written again with other tasks.

    Attributes:
        sources: what the exporter would have been given.
        manifest: of the bundle as it was.
        named: whether names in the graphs find every module of the base.
        origin: where base and adapters are on this machine; empty where the bundle's is not known.
    """

    sources: Sources
    manifest: Manifest
    named: bool
    origin: Origin


@dataclass(frozen=True)
class Adapted:
    """The graphs of a base with an adapter in them, ready to be written.

    Attributes:
        base: the transformers folder, or None with an ONNX base alone.
        adapter: the adapter.
        graphs: the graphs, the one that answers last.
        options: of the export.
        routes: frozen routes, where the export freezes them; see `Method.freeze`.
        quantization: what was done to the products, where it was done after the adapter was put in.
        precision: how the weights are stored.
        former: what a bundle whose tasks are changed says of itself; None for an export of a base.
        data: of a quantized bundle, the files of the rows that it was measured on, each with the task of all its rows.
    """

    base: Path | None
    adapter: Adapter
    graphs: Sequence[EditedGraph]
    options: ExportOptions
    routes: FrozenRoutes | None = None
    quantization: Quantization | None = None
    precision: StoredPrecision = "fp32"
    data: Sequence[tuple[str | None, Path]] = ()
    former: Inherited | None = None

    @property
    def quantized(self) -> bool:
        """Whether a builder has quantized the base, before the adapter was put in."""
        return any(is_nbits(node) for edited in self.graphs for node in edited.graph.model.graph)

    def copy(self, precision: StoredPrecision = "fp32") -> Adapted:
        """Copies of the graphs that share the weights, to be stored in another precision."""
        graphs = [copy(edited) for edited in self.graphs]
        for edited in graphs:
            edited.graph = replace(edited.graph, model=edited.graph.model.clone())
        return replace(self, graphs=graphs, precision=precision)


def write_bundle(writer: BundleWriter, adapted: Adapted) -> Bundle:
    """Writes adapted graphs as a bundle and puts it in place.

    Raises:
        NotSupportedError: the graphs need a newer ONNX Runtime than the options allow.
    """
    models = [edited.graph.model for edited in adapted.graphs]
    needed = fit_oldest(models, adapted.options.provider, adapted.options.min_ort)
    for edited in adapted.graphs:
        clean(edited.graph.model)
        _save(edited.graph.model, writer.folder / edited.graph.file)
    *others, main = (edited.graph for edited in adapted.graphs)
    companions = {name: path for name in (*COMPANIONS, *TOKENIZER_FILES) if (path := _in_base(main, name)) is not None}
    with TemporaryDirectory(prefix="eptx-") as workspace:
        if adapted.former is None:
            own = {name: companions.pop(name) for name in TOKENIZER_FILES if name in companions}
            companions |= tokenizer_files(own, adapted.adapter.folders, Path(workspace))
            companions |= processor_files(main, adapted.adapter.folders)
        for name, path in companions.items():
            writer.copy(path, name)
    if main.generation is not None and not others:
        writer.write(GENAI_CONFIG, genai_config(main, adapted.options.provider))
    by_content = adapted.options.base_onnx is not None and main.folder is not None
    named = not by_content if adapted.former is None else adapted.former.named
    precision = adapted.options.precision if adapted.quantization is None else adapted.precision
    write_record(writer, adapted.graphs, adapted.adapter, str(precision), named=named)
    if adapted.former is None:
        text = text_settings(writer.folder, main, main.longest)
        image = image_settings(main, adapted.adapter.folders)
    else:
        text, image = adapted.former.manifest.text, adapted.former.manifest.image
    manifest = replace(_manifest(adapted), onnxruntime=needed, text=text, image=image)
    writer.write("README.md", model_card(manifest))
    bundle = writer.finish(manifest)
    origin = Origin.of(adapted.base, adapted.options.base_onnx, adapted.adapter.folders, adapted.data)
    write_origin(bundle, origin if adapted.former is None else adapted.former.origin)
    return bundle


def _save(model: ir.Model, path: Path) -> None:
    try:
        ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=_SMALL)
    except ir.serde.SerdeError as error:
        raise BaseModelError(f"the base graph cannot be written as ONNX: {one_line(_root(error))}") from None


def _root(error: BaseException) -> BaseException:
    """The first of a chain of errors, which says what is wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _in_base(graph: BaseGraph, name: str) -> Path | None:
    if name in graph.files:
        return graph.files[name]
    path = None if graph.folder is None else graph.folder / name
    return path if path is not None and path.is_file() else None


def _manifest(adapted: Adapted) -> Manifest:
    adapter, graphs, options, former = adapted.adapter, adapted.graphs, adapted.options, adapted.former
    *others, main = (edited.graph for edited in graphs)
    graph = main.model.graph
    routes = method_of(adapter.method).route_fields(adapter, options, adapted.routes)
    told = told_names(options, served_tasks(adapter, options), adapter.tasks)
    return Manifest(
        generator=f"eptx {__version__}",
        mode=options.mode,
        method=adapter.kind,
        model_type=main.model_type,
        precision=_precision(adapted),
        provider=options.provider,
        tasks=_with_tokens(_tasks(adapter, graphs[-1], options, told), main),
        inputs=tuple(_tensor(value) for value in graph.inputs),
        outputs=tuple(_tensor(value) for value in graph.outputs),
        sources=_sources(adapted.base, options, told) if former is None else former.sources,
        fingerprints={"base": main.fingerprint, "adapter": adapter.fingerprint},
        modules=graphs[-1].modules,
        task_inference=any(edited.editor.similarities for edited in graphs),
        operators=Operators()
        if any(OPERATOR_DOMAIN in edited.graph.model.opset_imports for edited in graphs)
        else None,
        routing=routes.routing,
        route=routes.route,
        quantization=adapted.quantization,
        generation=main.generation,
        encoder=_component(others[0], graphs[0].modules) if others else None,
        vocab_size=_vocabulary(main),
        embedding=main.embedding,
        max_length=main.longest,
    )


def _with_tokens(tasks: tuple[Task, ...], graph: BaseGraph) -> tuple[Task, ...]:
    """The tasks, and how many tokens those have that have fewer than the model."""
    counts, most = graph.whole.vocabulary or (), _vocabulary(graph)
    fewer = [count if most is not None and count < most else None for count in counts]
    return tuple(replace(task, vocab_size=count) for task, count in zip_longest(tasks, fewer[: len(tasks)]))


def _vocabulary(graph: BaseGraph) -> int | None:
    """How many tokens the graph knows; None where it reads none, whatever its configuration says."""
    reads = any(value.name == "input_ids" for value in graph.model.graph.inputs)
    own = max(graph.whole.vocabulary or (0,)) or text_config(graph.config).get("vocab_size")
    return positive(own) if reads else None


def _precision(adapted: Adapted) -> str:
    """How the weights are stored; of a decoder that is ONNX already, as they are there."""
    if adapted.quantization is None and adapted.quantized:
        return "int4"
    if adapted.quantization is None:
        own = own_precision([edited.graph.model.graph for edited in adapted.graphs])
        if own is not None:
            return own
    return adapted.precision


def _component(graph: BaseGraph, modules: Mapping[str, ModuleOutput]) -> Component:
    inputs, outputs = graph.model.graph.inputs, graph.model.graph.outputs
    return Component(graph.file, tuple(map(_tensor, inputs)), tuple(map(_tensor, outputs)), modules)


def served_tasks(adapter: Adapter, options: ExportOptions) -> tuple[str, ...]:
    """The adapter's tasks that a bundle has."""
    return (options.folded_task(adapter.tasks),) if options.mode == "static" else adapter.tasks


def _tasks(
    adapter: Adapter, edited: EditedGraph, options: ExportOptions, told: Mapping[str, Names]
) -> tuple[Task, ...]:
    unknown = next((name for name in options.problem_types if name not in adapter.tasks), None)
    if unknown is not None:
        raise UsageError(f"--problem-type names an unknown task {unknown!r}; there are {', '.join(adapter.tasks)}")
    heads, graph, whole = adapter.heads, edited.graph, edited.graph.whole
    names = served_tasks(adapter, options)
    if any(value.name == TASK_ID for value in edited.editor.model.graph.inputs):
        names = (*names, *([BASE_TASK] if method_of(adapter.method).serves_base(options) and whole.base else []))

    def task(index: int, name: str, count: int | None, *, own: bool) -> Task:
        kind = problem_type(graph.config, count, options.problem_types.get(name))
        # heads beside the adapter read the bare model: what the base's own head is called says nothing of them
        called = label_names(name, count, adapter, told, {} if heads is not None else graph.config)
        return Task(name, index, count if own or called else None, called, kind)

    if whole.labels is None or all(value.name != LOGITS for value in graph.model.graph.outputs):
        classes = own_labels(graph.model.graph, graph.config) if graph.generation is None else None
        return tuple(task(i, n, classes, own=False) for i, n in enumerate(names))
    both = zip(names, whole.labels, strict=False)
    return tuple(task(i, n, count, own=True) for i, (n, count) in enumerate(both))


def _sources(base: Path | None, options: ExportOptions, told: Mapping[str, Names]) -> Sources:
    return Sources(
        base=base is not None,
        base_onnx=options.base_onnx is not None,
        top_k=options.top_k,
        tasks=None if options.tasks is None else tuple(options.tasks),
        problem_types=dict(options.problem_types) or None,
        model_class=options.model_class,
        label_names=told or None,
        min_ort=options.min_ort,
    )


def _tensor(value: ir.Value) -> TensorSpec:
    if value.dtype not in _DTYPES or value.shape is None or value.name is None:
        raise NotSupportedError(
            f"graph input or output {value.name} has type {value.dtype}; eptx knows {', '.join(_DTYPES.values())}"
        )
    shape = [dim if isinstance(dim, int) else dim.value or f"{value.name}_{i}" for i, dim in enumerate(value.shape)]
    return TensorSpec(value.name, _DTYPES[value.dtype], tuple(shape))
