"""``eptx calibrate``: what quantizing a model would cost and how far it would drop, without a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from eptx.bundle import Bundle, read_bundle
from eptx.bundle.origin import read_origin
from eptx.calibration.options import Search
from eptx.calibration.result import CalibrationResult
from eptx.calibration.run import REPORTS, calibrating, report_files
from eptx.calibration.search.trial_cache import FILE
from eptx.errors import UsageError
from eptx.exporter import ExportOptions, read_adapter
from eptx.exporter.folders import Adapters, Given, find_folders
from eptx.exporter.options import options_of
from eptx.files.publish import os_error, replace_file


def calibrate(
    base: Given | None,
    adapters: Adapters,
    out: Path,
    options: ExportOptions,
    *,
    bundle: Bundle | None = None,
) -> CalibrationResult:
    """Searches as an export does, measures every layer's sensitivity, and writes both down.

    Args:
        base: as in `export_bundle`.
        adapters: as there.
        out: a folder for ``calibration.json`` and ``report.html``; the results so far are kept there meanwhile, and the
            same call goes on from them.
        options: of the export that it is about; the precision is a `Search`.
        bundle: one of this model, to be measured as well.

    Returns:
        the content of ``calibration.json``.

    Raises:
        As `export_bundle`; UsageError where the folder holds something else.
    """
    _check_folder(out)
    found = find_folders(base, adapters, onnx=options.base_onnx is not None, allow_pickle=options.allow_pickle)
    adapter = read_adapter(found.adapters, top_k=options.top_k, tasks=options.tasks, allow_pickle=options.allow_pickle)
    with calibrating(found.base, adapter, options, out) as calibration:
        calibration.study()
        if bundle is not None:
            calibration.add(bundle)
        result = calibration.result()
        for name, content in report_files(result).items():
            replace_file(out / name, content)
        calibration.finish()
    return result


def calibrate_bundle(path: Path, out: Path, search: Search) -> CalibrationResult:
    """The same for a bundle, from the base and adapter that it was made from.

    Raises:
        BundleError: the bundle is damaged.
        UsageError: its base or adapter is not where the export found it.
    """
    bundle = read_bundle(path)
    origin = read_origin(bundle)
    if not origin.adapters:
        raise UsageError("no file beside the bundle says what it was made from: give BASE and ADAPTER instead")
    base = Path(origin.base) if origin.base is not None else None
    adapters = [Path(adapter) for adapter in origin.adapters]
    onnx = Path(origin.base_onnx) if origin.base_onnx else None
    options = replace(options_of(bundle.manifest), base_onnx=onnx, precision=search)
    gone = [folder for folder in (base, *adapters) if folder is not None and not folder.is_dir()]
    if gone:
        raise UsageError(f"the bundle was made from {gone[0]}, which is not there: give BASE and ADAPTER instead")
    return calibrate(base, adapters, out, options, bundle=bundle)


def _check_folder(out: Path) -> None:
    try:
        found = {path.name for path in out.iterdir()} if out.exists() else set()
    except OSError as error:
        raise os_error(out, error) from None
    if found and not found & {FILE, *REPORTS}:
        raise UsageError(f"{out}: holds something else; name a folder that is new or holds a calibration")
