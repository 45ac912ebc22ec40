"""From an adapter checkpoint and its base model to a bundle.

adapter checkpoint -- read --> Adapter --+
                                         +-- fold or attach --> adapted graph -- write --> bundle
base: transformers folder | .onnx -------+
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.options import ExportOptions

if TYPE_CHECKING:
    from eptx.exporter.methods.read import read_adapter

__all__ = ["ExportOptions", "Route", "read_adapter"]


def __getattr__(name: str) -> Any:
    """Loads the methods, and ONNX with them, when they are first used: a missing folder is said before."""
    if name != "read_adapter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("eptx.exporter.methods.read").read_adapter
