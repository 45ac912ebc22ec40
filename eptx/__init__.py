"""eptx: multi-task adapters as ONNX bundles.

Names are loaded when they are first used, so ``import eptx`` needs nothing but the standard library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from eptx._version import __version__
from eptx.errors import EptxError

if TYPE_CHECKING:
    from eptx.bundle import Bundle, Manifest, read_bundle
    from eptx.runtime import Outputs, Session

__all__ = ["Bundle", "EptxError", "Manifest", "Outputs", "Session", "__version__", "read_bundle"]

_LAZY = {
    "Bundle": "eptx.bundle",
    "Manifest": "eptx.bundle",
    "Outputs": "eptx.runtime",
    "Session": "eptx.runtime",
    "read_bundle": "eptx.bundle",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'eptx' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
