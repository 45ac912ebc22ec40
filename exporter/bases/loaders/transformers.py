"""A transformers folder as a base graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from eptx.errors import NotSupportedError
from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.loaders.folder import folder_graph
from eptx.exporter.bases.loaders.tracing.trace import trace
from eptx.exporter.bases.names import aliases
from eptx.exporter.bases.passes.fuse import fuse
from eptx.exporter.bases.passes.tidy import tidy
from eptx.exporter.bases.weights.model import is_encoder_decoder, load_model, read_config
from eptx.exporter.bases.weights.model_class import trained_class
from eptx.exporter.bases.weights.whole import Saved, banked, in_graph
from eptx.exporter.quiet import quiet
from eptx.progress import step

__all__ = ["load_transformers"]


def load_transformers(
    folder: Path,
    *,
    provider: Literal["cpu", "cuda"] = "cpu",
    headless: bool = False,
    class_name: str | None = None,
    saved: Saved | None = None,
    unread: frozenset[str] = frozenset(),
) -> BaseGraph:
    """Exports the model of a transformers folder, with a free batch and length, fused for ONNX Runtime.

    Nothing is downloaded, no remote code runs, and pickles are not read.

    Args:
        folder: ``config.json`` and ``model.safetensors`` (or several with an index).
        provider: the execution provider whose fusions the graph gets.
        headless: the bare model, whatever head the folder's architecture has.
        class_name: the class to export it as; None: the folder's own.
        saved: modules that an adapter's tasks bring whole.
        unread: inputs of the class that the graph is to do without, such as ``token_type_ids``.

    Returns:
        the graph; every linear layer is a product of its own that `locate` finds by name.

    Raises:
        BaseModelError: a file is missing or damaged, or the weights do not fit the configuration.
        NotSupportedError: the architecture cannot be exported.
        AdapterError: what the tasks bring does not fit the class.
    """
    config = read_config(folder)
    name = class_name or trained_class(config, (), headless=headless)
    with quiet():
        with step("load the base model"):
            if is_encoder_decoder(folder, config, name):
                raise NotSupportedError(f"a {name} is an encoder-decoder, which is not one graph")
            model, whole = load_model(folder, config, name, saved)
        if config["model_type"] == "deberta-v2":
            from eptx.exporter.bases.passes.deberta import allow_positions_per_row  # imports transformers

            allow_positions_per_row(model)
        with step("export the base graph"):
            traced = trace(model, folder, unread)
            graph = traced.graph
        del model  # its weights are the graph's now, and those that fusing turns can go
        with step("fuse the base graph"):
            kept = banked(graph, whole.banks)
            fuse(graph, provider, kept)
            tidy(graph, traced.axes)
    made = folder_graph(graph, folder, config)

    def holds(module: str) -> bool:
        return not any(alias in traced.idle for alias in aliases(module, made.prefix))

    return replace(made, whole=replace(whole, banks=in_graph(kept)), holds=holds)
