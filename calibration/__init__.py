"""Measuring on data what an export freezes: the routes of TuckA."""

from eptx.calibration.route import measure_route

__all__ = ["measure_route"]
