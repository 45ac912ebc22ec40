"""A graph that was made of a transformers folder, with what the folder says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir

from eptx.exporter.bases.graph import BaseGraph
from eptx.exporter.bases.weights.checkpoint import folder_fingerprint
from eptx.exporter.bases.weights.model import base_prefix


def folder_graph(model: ir.Model, folder: Path, config: dict[str, Any], *, origin: Path | None = None) -> BaseGraph:
    """A base graph.

    Args:
        model: the graph.
        folder: the transformers folder that it was made of.
        config: its ``config.json``.
        origin: the folder that the user gave, where `folder` was made of that: the fingerprint is its.
    """
    return BaseGraph(
        model=model,
        model_type=str(config["model_type"]),
        config=config,
        folder=folder,
        fingerprint=folder_fingerprint(origin or folder),
        prefix=base_prefix(config),
    )
