"""What a task's logits mean, as transformers tells it: ``problem_type``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from eptx.manifest.names import LOGITS, PROBLEM_TYPES


def problem_type(config: Mapping[str, Any], labels: int | None, told: str | None = None) -> str | None:
    """How a task's logits are read; None where there are none.

    As in transformers: what ``config.json`` says, else regression where there is one label, else one label of several.
    (One label of one would say nothing, so that too is a regression.)

    Args:
        config: ``config.json`` of the base.
        labels: how many logits count.
        told: what the user says instead.
    """
    if not labels:
        return None
    said = told or config.get("problem_type")
    if said in PROBLEM_TYPES and (said != "single_label_classification" or labels > 1):
        return str(said)
    return "regression" if labels == 1 else "single_label_classification"


def own_labels(graph: ir.Graph, config: Mapping[str, Any]) -> int | None:
    """How many labels the base's own classifier has, of a row or of each token; None without one."""
    logits = next((value for value in graph.outputs if value.name == LOGITS), None)
    if logits is None or logits.shape is None or len(logits.shape) not in (2, 3):
        return None
    width = logits.shape[-1]
    if not isinstance(width, int):
        return None
    names = config.get("id2label")
    classes = len(names) if isinstance(names, Mapping) else config.get("num_labels", 2)
    return width if len(logits.shape) == 2 or width == classes else None  # else they are words of a vocabulary
