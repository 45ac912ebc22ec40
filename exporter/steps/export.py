"""An adapter and its base model to graphs, and graphs to a bundle: the steps of an export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from eptx.bundle import Bundle, BundleWriter
from eptx.errors import NotSupportedError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.widths import check_widths
from eptx.exporter.bases import BaseGraph, Site, is_genai, locate
from eptx.exporter.bases.weights.float32 import needs_float32
from eptx.exporter.bundle.write import Adapted, served_tasks, write_bundle
from eptx.exporter.graph.banks.attach import attach_banks
from eptx.exporter.graph.edited import EditedGraph
from eptx.exporter.graph.ends.heads import put_heads
from eptx.exporter.graph.fp16.compute import compute_fp16
from eptx.exporter.graph.fp16.operators import drop_casts
from eptx.exporter.graph.fp16.store import store_fp16
from eptx.exporter.graph.names import IN_EMBEDDING
from eptx.exporter.graph.row_order import check_row_order
from eptx.exporter.methods.method import method_of
from eptx.exporter.options import ExportOptions
from eptx.exporter.steps.load import complete, load
from eptx.exporter.steps.plan import check_options
from eptx.manifest.names import FLOAT_PRECISIONS
from eptx.progress import step


def adapt(base: Path | None, adapter: Adapter, options: ExportOptions, workspace: Path) -> Adapted:
    """The graphs of a base with an adapter in them, ready to be quantized, or stored and written.

    Args:
        base: the base model's transformers folder; None when `options.base_onnx` stands alone.
        adapter: the adapter.
        options: the mode and its settings. Weights stay float32, but those that a builder stores as int4 itself.
        workspace: an empty folder that lives as long as the graphs.

    Raises:
        UsageError: the options contradict each other or the adapter.
        BaseModelError: the base's files are damaged, or do not fit the adapter.
        NotSupportedError: something that eptx does not do.
    """
    options.check()
    check_options(adapter, options)
    adapter = complete(base, adapter, options)
    return adapt_graphs(base, adapter, load(base, adapter, options, workspace), options)


def adapt_graphs(base: Path | None, adapter: Adapter, bases: Sequence[BaseGraph], options: ExportOptions) -> Adapted:
    """`adapt` with the base's graphs at hand."""
    graphs = [EditedGraph(graph) for graph in bases]
    with step("finding the adapted modules"):
        for edited in graphs:
            edited.sites = find(adapter, edited.graph, options)
            if method_of(adapter.method).task_by_task is not None and options.mode == "conditioned":
                edited.keep_base()
            if adapter.heads is not None:
                put_heads(edited, adapter.heads, served_tasks(adapter, options))
    routes = method_of(adapter.method).freeze(adapter, graphs, options)
    adapted = Adapted(base, adapter, graphs, options, routes)
    with step(f"putting the adapter into the graph ({options.mode})"):
        for edited in graphs:
            put_in(adapted, edited)
        _share_task_id(graphs)
    if options.precision == "int4" and adapted.quantized:
        return replace(adapted, precision="int4")
    return replace(adapted, precision="fp16" if options.precision == "fp16" else "fp32")


def store(adapted: Adapted) -> None:
    """Stores what is float32 as float16, where the precision says so: all of it, or the adapter's.

    For CUDA the graph computes in float16, unless the base's class sums up more than that holds.
    """
    if adapted.precision == "fp32":
        return
    for edited in adapted.graphs:
        editor, model = edited.editor, edited.graph.model
        for_cuda, built = adapted.options.provider == "cuda", is_genai(edited.graph)
        if adapted.precision == "fp16" and for_cuda and not built and not needs_float32(edited.graph.config):
            embedding = {node for node in model.graph if (node.name or "").startswith(IN_EMBEDDING)}
            compute_fp16(model, editor.exact, editor.wide | embedding)
            continue
        only_adapter = adapted.precision not in FLOAT_PRECISIONS or (built and for_cuda)
        store_fp16(model, editor.exact, but=edited.weights if only_adapter else None)
        if built and for_cuda:
            drop_casts(model)


def write(writer: BundleWriter, adapted: Adapted) -> Bundle:
    """Writes adapted graphs as a bundle and puts it in place."""
    with step("writing the bundle"):
        return write_bundle(writer, adapted)


def find(adapter: Adapter, graph: BaseGraph, options: ExportOptions) -> dict[str, Site]:
    """The adapted modules of a graph.

    Raises:
        BaseModelError: one is missing, or is of another width than the adapter.
    """
    places = {name: place for name, place in (options.module_map or {}).items() if graph.holds(name)}
    sites = locate(graph, [name for name in adapter.module_names if graph.holds(name)], module_map=places)
    check_widths(adapter, {name: (site.out_features, site.in_features) for name, site in sites.items()})
    return sites


def put_in(adapted: Adapted, edited: EditedGraph) -> None:
    """Puts an adapter into one of the graphs, in the mode of the options."""
    adapter, options = adapted.adapter, adapted.options
    if options.mode != "static":
        _attach(adapted, edited)
    else:
        assert not edited.graph.whole.banks
        method, task = method_of(adapter.method), options.folded_task(adapter.tasks)
        index = adapter.tasks.index(task)
        if not edited.graph.adapted:
            method.fold_graph(adapter, edited, index, adapted.routes)
        for name, site in edited.sites.items():
            if (shift := method.shift(adapter, name, index)) is not None:
                edited.editor.shift(site, shift)
        edited.name_modules()
    edited.editor.finish()


def _share_task_id(graphs: Sequence[EditedGraph]) -> None:
    """All graphs of a bundle are asked alike, also one that holds no adapted module."""
    if any(edited.editor.has_task_id for edited in graphs):
        for edited in graphs:
            edited.editor.task_id()


def _attach(adapted: Adapted, edited: EditedGraph) -> None:
    adapter, editor, method = adapted.adapter, edited.editor, method_of(adapted.adapter.method)
    settings = method.settings(adapter, edited, adapted.graphs, adapted.options, adapted.routes)
    _check_float32(edited.sites, half=is_genai(edited.graph))
    editor.own = set(edited.graph.whole.banks)
    if edited.graph.generation is None:
        check_row_order(editor, edited.sites)
    method.attach(adapter, editor, edited.sites, settings)
    editor.wire()
    edited.name_modules()  # a bank may take the place of a module's product
    banks = edited.graph.whole.banks
    used = method.task_used(editor)
    if banks:
        attach_banks(editor, banks, editor.task_id() if used is None else used)


def _check_float32(sites: dict[str, Site], *, half: bool) -> None:
    """The operators' constants are float32, and ONNX mixes no types; GenAI's float16 graphs get casts."""
    known = [ir.DataType.FLOAT, *([ir.DataType.FLOAT16] if half else [])]
    for name, site in sites.items():
        dtype = next((value.dtype for value in (site.y, *site.node.inputs) if value is not None and value.dtype), None)
        if dtype is not None and dtype not in known:
            raise NotSupportedError(
                f"{name} computes in {dtype.name.lower()} in the base graph: use --mode static, or give a float32 base"
            )
