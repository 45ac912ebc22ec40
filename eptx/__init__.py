"""eptx: multi-task adapters as ONNX bundles.

Names are loaded when they are first used, so ``import eptx`` needs nothing but the standard library.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eptx._version import __version__
from eptx.errors import EptxError, NotSupportedError

if TYPE_CHECKING:
    from eptx.bundle import Bundle, read_bundle
    from eptx.calibration import Search, calibrate
    from eptx.calibration import export_bundle as export
    from eptx.calibration.change import add_tasks as add
    from eptx.calibration.change import remove_tasks as remove
    from eptx.exporter import ExportOptions
    from eptx.exporter.steps.convert import convert_adapter as convert
    from eptx.exporter.validation import ValidateOptions
    from eptx.exporter.validation import validate_bundle as validate
    from eptx.runtime import Outputs, Session
    from eptx.runtime.validation.proof.validate import validate_against_proof

__all__ = [
    "Bundle",
    "EptxError",
    "ExportOptions",
    "Outputs",
    "Search",
    "Session",
    "ValidateOptions",
    "__version__",
    "add",
    "calibrate",
    "convert",
    "export",
    "read_bundle",
    "remove",
    "validate",
    "validate_against_proof",
]

#: name -> where it is, and what it is called there
_LAZY = {
    "Bundle": ("eptx.bundle", "Bundle"),
    "ExportOptions": ("eptx.exporter", "ExportOptions"),
    "Outputs": ("eptx.runtime", "Outputs"),
    "Search": ("eptx.calibration", "Search"),
    "Session": ("eptx.runtime", "Session"),
    "ValidateOptions": ("eptx.exporter.validation", "ValidateOptions"),
    "add": ("eptx.calibration.change", "add_tasks"),
    "calibrate": ("eptx.calibration", "calibrate"),
    "convert": ("eptx.exporter.steps.convert", "convert_adapter"),
    "export": ("eptx.calibration", "export_bundle"),
    "read_bundle": ("eptx.bundle", "read_bundle"),
    "remove": ("eptx.calibration.change", "remove_tasks"),
    "validate": ("eptx.exporter.validation", "validate_bundle"),
    "validate_against_proof": ("eptx.runtime.validation.proof.validate", "validate_against_proof"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'eptx' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("eptx"):
            raise
        return _missing(name, error.name)


def _missing(name: str, package: str) -> Callable[..., Any]:
    """What stands for a name whose packages are not installed: ``help(eptx)`` and ``import *`` work without them."""
    why = f"eptx.{name} needs {package}: pip install 'eptx[export]'"

    def missing(*_: Any, **__: Any) -> Any:
        raise NotSupportedError(why)

    missing.__name__ = missing.__qualname__ = name
    missing.__doc__ = f"Not there: {why}."
    return missing


def __dir__() -> list[str]:
    return sorted(__all__)
