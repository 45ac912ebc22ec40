"""``eptx export``: an adapter and its base model to a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from eptx._progress import step
from eptx.bundle import Bundle, BundleWriter
from eptx.errors import BaseModelError, NotSupportedError, UsageError
from eptx.exporter.adapter import Adapter
from eptx.exporter.attach import AttachPlan, Editor
from eptx.exporter.base import BaseGraph, Site, load_onnx, load_transformers, locate
from eptx.exporter.heads import attach_head, attach_head_bank, check_fits
from eptx.exporter.infer import add_task_used
from eptx.exporter.methods import method_of
from eptx.exporter.methods.tucka.adapter import TuckaAdapter
from eptx.exporter.options import ExportOptions
from eptx.exporter.plan import check_options, routes_by_task, static_task
from eptx.exporter.read import read_adapter
from eptx.exporter.storage import store_fp16
from eptx.exporter.write import Source, write_bundle


def export(base: Path | None, adapters: Sequence[Path], out: Path, options: ExportOptions) -> Bundle:
    """Reads an adapter and its base, puts the adapter into the ONNX graph, and writes a bundle.

    Args:
        base: the base model's transformers folder; None when `options.base_onnx` stands alone.
        adapters: the adapter folder, or several LoRA folders on one base, each a task.
        out: the bundle's folder; an existing bundle is replaced in one step, anything else is left alone.
        options: the mode and its settings.

    Returns:
        The bundle, verified as a reader would.

    Raises:
        UsageError: the options contradict each other or the adapter.
        AdapterError, BaseModelError: the files are damaged or do not fit each other.
        NotSupportedError: something that eptx does not do.
    """
    options.check()
    with BundleWriter(out) as writer:
        with step("reading the adapter"):
            adapter = read_adapter(adapters, top_k=options.top_k, tasks=options.tasks)
            check_options(adapter, options)
        graph = _load(base, adapter, options)
        with step("finding the adapted modules"):
            sites = locate(graph, adapter.module_names, module_map=options.module_map)
            check_widths(adapter, sites)
        with step(f"putting the adapter into the graph ({options.mode})"):
            editor = Editor(graph.model)
            put_in(adapter, editor, graph, sites, options)
        with step("writing the bundle"):
            if options.dtype == "fp16":
                store_fp16(graph.model)
            return write_bundle(writer, Source(base, adapters), adapter, graph, sites, editor, options)


def put_in(adapter: Adapter, editor: Editor, graph: BaseGraph, sites: dict[str, Site], options: ExportOptions) -> None:
    """Puts an adapter and its task heads into a graph, in the mode of the options."""
    if adapter.heads is not None:
        check_fits(adapter.heads, graph.model, graph.config.get("hidden_size"))
    if options.mode == "static":
        _fold(adapter, editor, sites, options)
    else:
        _attach(adapter, editor, sites, options)
    editor.finish()


def _fold(adapter: Adapter, editor: Editor, sites: dict[str, Site], options: ExportOptions) -> None:
    task = static_task(adapter, options)
    index = adapter.tasks.index(task)
    choice = routes_by_task(adapter, options)[index] if isinstance(adapter, TuckaAdapter) else index
    method = method_of(adapter.method)
    for name, site in sites.items():
        site.set_weight(method.fold(adapter, name, site.weight_array().astype("float64"), choice))
    if adapter.heads is not None:
        attach_head(editor, adapter.heads, task)


def _attach(adapter: Adapter, editor: Editor, sites: dict[str, Site], options: ExportOptions) -> None:
    routes = (
        routes_by_task(adapter, options) if isinstance(adapter, TuckaAdapter) and options.mode == "conditioned" else ()
    )
    _check_float32(sites)
    plan = AttachPlan(options.mode, options.routing, routes)
    method_of(adapter.method).attach(adapter, editor, sites, plan)
    editor.wire()
    if editor.similarities:
        task_id = add_task_used(editor)
    elif adapter.heads is not None:
        task_id = editor.task_id()
    if adapter.heads is not None:
        attach_head_bank(editor, adapter.heads, adapter.tasks, task_id)


def _check_float32(sites: dict[str, Site]) -> None:
    """The operators' constants are float32, and ONNX mixes no types."""
    for name, site in sites.items():
        dtype = next((value.dtype for value in (site.y, *site.node.inputs) if value is not None and value.dtype), None)
        if dtype not in (None, ir.DataType.FLOAT):
            raise NotSupportedError(
                f"{name} computes in {dtype.name.lower()} in the base graph: use --mode static, or give a float32 base"
            )


def _load(base: Path | None, adapter: Adapter, options: ExportOptions) -> BaseGraph:
    if options.base_onnx is not None:
        with step("reading the ONNX base"):
            return load_onnx(options.base_onnx, folder=base)
    if base is None:
        raise UsageError("no base model given: name its transformers folder, or an ONNX file with --base-onnx")
    with step("exporting the base graph"):
        return load_transformers(base, provider=options.provider, headless=adapter.heads is not None)


def check_widths(adapter: Adapter, sites: dict[str, Site]) -> None:
    """Compares the adapter's widths with the base's.

    Raises:
        BaseModelError: they differ at a module.
    """
    for name, site in sites.items():
        widths = adapter.widths(name)
        fits_out = widths.out_features is None or site.out_features in widths.out_features
        if site.in_features != widths.in_features or not fits_out:
            out = (
                "any"
                if widths.out_features is None
                else "-".join(map(str, sorted({widths.out_features[0], widths.out_features[-1]})))
            )
            raise BaseModelError(
                f"the adapter does not fit this base: {name} is [{site.out_features}, {site.in_features}] in the base, "
                f"[{out}, {widths.in_features}] in the adapter"
            )
