"""``eptx calibrate``: what quantizing a model would cost and lose, written down, without a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eptx.bundle.origin import read_origin
from eptx.files.publish import os_error
from eptx.bundle import Bundle, read_bundle
from eptx.calibration.search.trial_cache import FILE
from eptx.calibration.options import CalibrationOptions
from eptx.calibration.run import REPORTS, Calibration
from eptx.errors import UsageError
from eptx.exporter import ExportOptions
from eptx.exporter.options import options_of


def calibrate(
    base: Path | None,
    adapters: Sequence[Path],
    out: Path,
    options: ExportOptions,
    calibration: CalibrationOptions,
    *,
    bundle: Bundle | None = None,
) -> dict[str, Any]:
    """Searches as an export with the precision "auto" does, measures every layer's sensitivity, and writes it down.

    Args:
        base: as in `export_bundle`.
        adapters: as there.
        out: a folder for ``calibration.json`` and ``report.html``; while it runs, what is known so far is kept there,
            and the same call goes on from that.
        options: of the export that it is about; its precision does not matter.
        calibration: the data, the budget and the goal.
        bundle: one of this model, to be measured as well.

    Returns:
        the content of ``calibration.json``.

    Raises:
        As `export_bundle`; UsageError where the folder holds something else.
    """
    _check_folder(out)
    with Calibration(base, adapters, options, calibration, out) as running:
        running.study()
        if bundle is not None:
            running.add(bundle)
        for name, content in running.reports().items():
            _write(out / name, content)
        result = running.result()
        running.done()
    return result


def calibrate_bundle(path: Path, out: Path, calibration: CalibrationOptions) -> dict[str, Any]:
    """The same for a bundle, from the base and adapter that it was made from.

    Raises:
        BundleError: the bundle is damaged.
        UsageError: its base or adapter is not where the export found it.
    """
    bundle = read_bundle(path)
    origin = read_origin(bundle)
    if not origin.adapters:
        raise UsageError("nothing beside the bundle says what it was made from: give BASE and ADAPTER instead")
    base = Path(origin.base) if origin.base is not None else None
    adapters = [Path(adapter) for adapter in origin.adapters]
    options = replace(options_of(bundle.manifest), base_onnx=Path(origin.base_onnx) if origin.base_onnx else None)
    gone = [folder for folder in (base, *adapters) if folder is not None and not folder.is_dir()]
    if gone:
        raise UsageError(f"the bundle was made from {gone[0]}, which is not there: give BASE and ADAPTER instead")
    return calibrate(base, adapters, out, options, calibration, bundle=bundle)


def _check_folder(out: Path) -> None:
    try:
        found = {path.name for path in out.iterdir()} if out.exists() else set()
    except OSError as error:
        raise os_error(out, error) from None
    if found and not found & {FILE, *REPORTS}:
        raise UsageError(f"{out}: holds something else; name a folder that is new or holds a calibration")


def _write(path: Path, content: bytes) -> None:
    """Whole, or not at all."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_bytes(content)
    beside.replace(path)
