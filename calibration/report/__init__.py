"""What a calibration found, to read: a page for the browser and tables for the terminal."""

from __future__ import annotations

from eptx.calibration.report.page import report_html
from eptx.calibration.report.text import report_text

__all__ = ["report_html", "report_text"]
