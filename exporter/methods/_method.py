"""What a method gives the exporter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.adapters.checkpoint import Checkpoint, ReadOptions
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.editor import AttachPlan, GraphEditor


@dataclass(frozen=True)
class Method:
    """One adapter method.

    Attributes:
        name: "ept", "tucka", "lora".
        matches: whether a folder's configuration and tensor names are of this method.
        read: the adapter in one checkpoint folder, or in several that share a base.
        fold: (adapter, module, weight [out, in] float64, task id or route) -> the adapted weight, float64.
        attach: puts operators for every module into a graph.
    """

    name: str
    matches: Callable[[Mapping[str, Any], Sequence[str]], bool]
    read: Callable[[Sequence[Checkpoint], ReadOptions], Adapter]
    fold: Callable[[Any, str, np.ndarray, Any], np.ndarray]
    attach: Callable[[Any, GraphEditor, Mapping[str, Site], AttachPlan], None]
