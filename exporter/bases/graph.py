"""The base model as a graph, whichever exporter made it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from eptx.bundle import Embedding, Generation
from eptx.exporter.bases.weights.whole import Banked

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
        places: module -> node and columns (as in a module map), for modules whose names the exporter has changed.
        files: further files of the base that a bundle needs, by name.
        generation: how the graph generates text, if it does.
        embedding: how its output ``embedding`` is computed; None without one.
        adapted: whether one task is folded into its weights already.
        file: what it is called in a bundle.
        longest: the most tokens of a text that the base reads; None where nothing limits it.
        whole: what became of the tensors that tasks change.
        holds: whether an adapted module is in this graph, where a base has several.
    """

    model: ir.Model
    model_type: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    fingerprint: str = ""
    prefix: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    generation: Generation | None = None
    embedding: Embedding | None = None
    adapted: bool = False
    file: str = "model.onnx"
    longest: int | None = None
    whole: Banked = field(default_factory=Banked)
    holds: Callable[[str], bool] = lambda module: True
