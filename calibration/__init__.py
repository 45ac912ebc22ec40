"""Exports in any precision, and what quantizing costs: measured on data, within a budget.

quantize (how weights are stored), routes (what data takes) -> search -> result -> report -> run -> export, costs

Names are loaded when they are first used: `change`, which measures nothing, is to start fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eptx.calibration.costs import calibrate, calibrate_bundle
    from eptx.calibration.experts import ExpertStudy, study_experts
    from eptx.calibration.export import export_bundle, run_export
    from eptx.calibration.options import Search
    from eptx.calibration.result import CalibrationResult
    from eptx.calibration.routes.study import RouteStudy, study_routes

__all__ = [
    "CalibrationResult",
    "ExpertStudy",
    "RouteStudy",
    "Search",
    "calibrate",
    "calibrate_bundle",
    "export_bundle",
    "run_export",
    "study_experts",
    "study_routes",
]

#: module -> the names that it has
_LAZY = {
    "costs": ("calibrate", "calibrate_bundle"),
    "experts": ("ExpertStudy", "study_experts"),
    "export": ("export_bundle", "run_export"),
    "options": ("Search",),
    "result": ("CalibrationResult",),
    "routes.study": ("RouteStudy", "study_routes"),
}


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _LAZY.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
