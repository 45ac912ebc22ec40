"""The base model as a graph, whichever exporter made it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

__all__ = ["BaseGraph"]


@dataclass
class BaseGraph:
    """A base model's ONNX graph with what is known about where it came from.

    Attributes:
        model: the graph; its inputs and outputs keep transformers' names, dynamic dims are ``batch`` and
            ``length``.
        model_type: transformers' ``model_type`` ("bert"), "" when no configuration came with the graph.
        config: the content of ``config.json``, or ``{}``.
        folder: the transformers folder, whose tensors verify the graph's weights; None when there is none.
        fingerprint: ``sha256:<hex>`` over the files the graph was made from.
        prefix: the architecture's ``base_model_prefix`` ("bert", "model"), "" when unknown.
    """

    model: ir.Model
    model_type: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    fingerprint: str = ""
    prefix: str = ""
