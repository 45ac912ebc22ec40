"""Exports in any precision, and what quantizing costs: measured on data, within a budget.

quantize (how weights are stored), routes (what data takes) -> search -> result -> report -> run -> export, calibrate
"""

from eptx.calibration.calibrate import calibrate, calibrate_bundle
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
