"""The base of an export as graphs, by the exporter that is best for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from eptx.errors import UsageError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.bases import (
    BaseGraph,
    BuilderPrecision,
    is_decoder,
    load_encoder_decoder,
    load_genai,
    load_onnx,
    load_transformers,
)
from eptx.exporter.bases.loaders.genai import check_decoder
from eptx.exporter.bases.max_length import longest
from eptx.exporter.bases.padding import counted_padding
from eptx.exporter.bases.passes.whole import with_whole
from eptx.exporter.bases.weights.model import is_encoder_decoder, read_config
from eptx.exporter.bases.weights.model_class import trained_class
from eptx.exporter.methods.method import method_of
from eptx.exporter.options import ExportOptions
from eptx.exporter.steps.fold import fold_folder
from eptx.exporter.steps.plan import saved_modules
from eptx.progress import step


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
    graphs = _graphs(base, adapter, options, workspace)
    most = longest(graphs[0])
    graphs = [replace(graph, longest=most) for graph in graphs]
    counts = method_of(adapter.method).reads_padding(options)
    home = base if base is not None else options.base_onnx.parent if options.base_onnx is not None else None
    return [counted_padding(graph, home) for graph in graphs] if counts and home is not None else graphs


def _graphs(base: Path | None, adapter: Adapter, options: ExportOptions, workspace: Path) -> list[BaseGraph]:
    if options.base_onnx is not None:
        with step("reading the ONNX base"):
            graph = load_onnx(options.base_onnx, folder=base)
            return [with_whole(graph, saved_modules(adapter, options))]
    if base is None:
        raise UsageError("no base model given: name its transformers folder, or an ONNX file with --base-onnx")
    config = read_config(base)
    name = trained_class(config, adapter.trained_as, headless=adapter.heads is not None)
    if is_decoder({"architectures": [name]}):
        return [_load_decoder(base, adapter, options, workspace)]
    with step("exporting the base graph"):
        saved = saved_modules(adapter, options)
        if is_encoder_decoder(base, config, name):
            return load_encoder_decoder(base, provider=options.provider, class_name=name, saved=saved)
        return [load_transformers(base, provider=options.provider, class_name=name, saved=saved)]


def _load_decoder(base: Path, adapter: Adapter, options: ExportOptions, workspace: Path) -> BaseGraph:
    """A static task is folded before the builder sees the weights, which may quantize them."""
    check_decoder(read_config(base))
    with step("exporting the base graph"):
        static = options.mode == "static"
        folder = fold_folder(adapter, base, workspace / "folded", options) if static else base
        built = workspace / "built"
        precision: BuilderPrecision = options.precision if options.precision in ("fp16", "int4") else "fp32"
        graph = load_genai(folder, built, precision=precision, provider=options.provider, origin=base)
    return replace(graph, adapted=True) if static else with_whole(graph, saved_modules(adapter, options))
