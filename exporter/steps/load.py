"""The base of an export as graphs, by the exporter that is best for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from eptx._one_line import shown
from eptx.errors import NotSupportedError, UsageError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.bases import (
    BaseGraph,
    BuilderPrecision,
    is_decoder,
    load_decoder,
    load_encoder_decoder,
    load_genai,
    load_onnx,
    load_transformers,
)
from eptx.exporter.bases.max_length import longest
from eptx.exporter.bases.not_built import NotBuiltError
from eptx.exporter.bases.padding import counted_padding
from eptx.exporter.bases.passes.whole import with_whole
from eptx.exporter.bases.weights.model import is_encoder_decoder, read_config
from eptx.exporter.bases.weights.model_class import reads_segments, trained_class
from eptx.exporter.bases.weights.sentence import Sentence, read_sentence
from eptx.exporter.bases.weights.whole import Saved
from eptx.exporter.graph.ends.embedding import put_embedding
from eptx.exporter.methods.method import method_of
from eptx.exporter.options import ExportOptions
from eptx.exporter.steps.fold import fold_folder
from eptx.exporter.steps.plan import saved_modules
from eptx.manifest.names import EMBEDDING
from eptx.progress import note, step


def complete(base: Path | None, adapter: Adapter, options: ExportOptions) -> Adapter:
    """The adapter with what its method needs the base for.

    Raises:
        UsageError: it needs the base's folder, and there is none.
        AdapterError, BaseModelError, NotSupportedError: the two do not fit, or the options do not fit what they make.
    """
    method = method_of(adapter.method)
    name = None if base is None else class_of(base, read_config(base), adapter, options)
    completed: Adapter = method.complete(adapter, base, name)
    method.check(completed, options)
    return completed


def load(base: Path | None, adapter: Adapter, options: ExportOptions, workspace: Path) -> list[BaseGraph]:
    """The graphs of a base, the one that answers last.

    Args:
        base: the transformers folder, or None with an ONNX base alone.
        adapter: what will be put in: with task heads the bare model is enough.
        options: of the export.
        workspace: an empty folder that lives as long as the graphs.

    Raises:
        UsageError: there is no base, or it cannot be stored as the options ask.
        BaseModelError, NotSupportedError: see the loaders.
    """
    home = base if base is not None else options.base_onnx.parent if options.base_onnx is not None else None
    sentence = _sentence(home, options)
    graphs = _graphs(base, adapter, options, workspace, embeds=sentence is not None)
    most = longest(graphs[0])
    *_, answering = graphs
    if answering.generation is not None and len(graphs) > 1:
        graphs[-1] = replace(answering, generation=replace(answering.generation, longest=longest(answering)))
    graphs = [replace(graph, longest=most) for graph in graphs]
    counts = method_of(adapter.method).reads_padding(options)
    graphs = [counted_padding(graph, home) for graph in graphs] if counts and home is not None else graphs
    return [*graphs[:-1], _with_embedding(graphs[-1], sentence)]


def _sentence(home: Path | None, options: ExportOptions) -> Sentence | None:
    """What the base's folder says of embeddings. What eptx does not know of it, tasks do without."""
    try:
        sentence = None if home is None else read_sentence(home, allow_pickle=options.allow_pickle)
    except NotSupportedError as error:
        note(f"the bundle has no output {EMBEDDING}: {error}")
        return None
    if sentence is not None and sentence.prompt:
        note(f"sentence-transformers puts {shown(sentence.prompt)} before every text by itself; a bundle does not")
    return sentence


def _with_embedding(graph: BaseGraph, sentence: Sentence | None) -> BaseGraph:
    try:
        return graph if sentence is None else put_embedding(graph, sentence)
    except NotSupportedError as error:
        note(f"the bundle has no output {EMBEDDING}: {error}")
        return graph


def _graphs(
    base: Path | None, adapter: Adapter, options: ExportOptions, workspace: Path, *, embeds: bool
) -> list[BaseGraph]:
    saved = saved_modules(adapter, options, embeds=embeds)
    if options.base_onnx is not None:
        with step("reading the ONNX base"):
            return [with_whole(load_onnx(options.base_onnx, folder=base), saved)]
    if base is None:
        raise UsageError("no base model given: name its transformers folder, or an ONNX file with --base-onnx")
    config = read_config(base)
    name = class_of(base, config, adapter, options)
    if is_decoder({"architectures": [name]}):
        return [_load_decoder(base, adapter, options, workspace, name, saved)]
    with step("exporting the base graph"):
        if is_encoder_decoder(base, config, name):
            return load_encoder_decoder(base, provider=options.provider, class_name=name, saved=saved)
        unread = frozenset() if reads_segments(config, adapter.trained_as) else frozenset({"token_type_ids"})
        return [load_transformers(base, provider=options.provider, class_name=name, saved=saved, unread=unread)]


def class_of(base: Path, config: Mapping[str, Any], adapter: Adapter, options: ExportOptions) -> str:
    """The class that an export makes its graph of; `config` is the base's ``config.json``. See `trained_class`."""
    headless, asked = adapter.heads is not None, options.model_class
    return trained_class(config, adapter.trained_as, headless=headless, asked=asked, folder=base)


def _load_decoder(
    base: Path, adapter: Adapter, options: ExportOptions, workspace: Path, class_name: str, saved: Saved
) -> BaseGraph:
    """By GenAI's builder, or by transformers' exporter what the builder does not make."""
    precision: BuilderPrecision = options.precision if options.precision in ("fp16", "int4") else "fp32"
    rounds = precision == "int4" or (precision == "fp16" and options.provider == "cuda")
    folds = rounds and options.mode == "static"  # before the builder rounds the weights
    with step("exporting the base graph"):
        try:
            folder = fold_folder(adapter, base, workspace / "folded", options) if folds else base
            built = workspace / "built"
            graph = load_genai(folder, built, precision=precision, provider=options.provider, origin=base)
        except NotBuiltError as error:
            if precision == "int4":
                problem = f"{error}; int4 weights come from it alone: use another --precision"
                raise NotSupportedError(problem) from None
            return load_decoder(base, class_name, provider=options.provider, saved=saved)
    return replace(graph, adapted=True) if folds else with_whole(graph, saved)
