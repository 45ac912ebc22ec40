"""Writes a report into its bundle."""

from __future__ import annotations

from eptx.bundle import Bundle, write_report
from eptx.files.strict_json import dump_json
from eptx.runtime.validation.report.page import report_html
from eptx.runtime.validation.report.report import Report


def write_validation(bundle: Bundle, report: Report) -> None:
    """Writes ``validation.json`` and ``report.html``.

    Raises:
        UsageError: the bundle cannot be written to.
        LimitError: the disk is full.
    """
    write_report(bundle, "validation.json", dump_json(report.to_json()))
    write_report(bundle, "report.html", report_html(report).encode())
