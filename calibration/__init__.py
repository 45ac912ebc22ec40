"""Quantizing within a budget: what data says about routes, experts, layers and tasks.

options + data -> Calibration (workbench, search) -> bundle, calibration.json, report
"""

from eptx.calibration.calibrate import calibrate, calibrate_bundle
from eptx.calibration.experts import ExpertStudy, study_experts
from eptx.calibration.export import export_bundle
from eptx.calibration.options import CalibrationOptions
from eptx.calibration.routes.study import RouteStudy, measure_route, routed_tasks, study_routes

__all__ = [
    "CalibrationOptions",
    "ExpertStudy",
    "RouteStudy",
    "calibrate",
    "calibrate_bundle",
    "export_bundle",
    "measure_route",
    "routed_tasks",
    "study_experts",
    "study_routes",
]
