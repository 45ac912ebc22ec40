"""``eptx export``: a bundle in any precision, measured on data where there is some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from eptx.bundle import Bundle, BundleWriter, write_report
from eptx.calibration.options import Search
from eptx.calibration.quantize import Scheme
from eptx.calibration.quantize.config import BUILT, QuantizationConfig, quantize
from eptx.calibration.result import CalibrationResult
from eptx.calibration.routes.study import check_freezes, study_routes
from eptx.calibration.run import Calibration, calibrating, read_rows, report_files
from eptx.calibration.search.trial import is_within
from eptx.errors import NotSupportedError, UsageError, ValidationError
from eptx.exporter import ExportOptions, read_adapter
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.folders import Adapters, Given, find_folders
from eptx.exporter.steps.export import adapt, store, write
from eptx.exporter.steps.plan import check_options
from eptx.manifest.names import FLOAT_PRECISIONS
from eptx.progress import step

_SCHEMES: dict[str, Scheme] = {"int8": "int8", "int8-static": "int8-static", "int4": "int4-blocks"}


@dataclass(frozen=True)
class Exported:
    """A bundle, and what was measured of it, if anything was."""

    bundle: Bundle
    calibration: CalibrationResult | None = None


def export_bundle(base: Given | None, adapters: Adapters, out: Path, options: ExportOptions) -> Bundle:
    """Exports a base model with an adapter to a bundle, in any precision.

    Args:
        base: the base model's transformers folder, or its id on the hub (``owner/name``, ``owner/name@revision``); None
            when `options.base_onnx` stands alone, and for the base that the adapter names.
        adapters: the adapter's folder or id, or several of LoRA on one base, each a task.
        out: the bundle's folder; an existing bundle is replaced in one step, anything else is left alone. A search
            keeps its results so far beside it, in ``<out>.calibration``: the same call goes on from there.
        options: the mode, the precision and further settings. A precision that is a `Search` measures on data. The
            precision "int8-static" needs one, and so does the search for the best. Of TuckA it also measures the
            frozen routes. With one fixed precision it measures the accuracy drop: a budget is then kept, or nothing
            is written.

    Returns:
        The bundle, verified as a reader would; after a search with ``calibration.json`` in it, and its report.

    Raises:
        UsageError: the options contradict each other or the adapter, or data is missing.
        AdapterError, BaseModelError, DataError: the files are damaged or do not fit each other.
        NotSupportedError: something that eptx does not do.
        ValidationError: a task drops by more points than the stated budget.
    """
    options.check()
    found = find_folders(base, adapters, onnx=options.base_onnx is not None, allow_pickle=options.allow_pickle)
    return run_export(found.base, found.adapters, out, options).bundle


def run_export(base: Path | None, adapters: Sequence[Path], out: Path, options: ExportOptions) -> Exported:
    """`export_bundle` of folders that are found, with what was measured."""
    options.check()
    search = options.precision if isinstance(options.precision, Search) else None
    wanted = search.only if search is not None else options.precision
    if search is not None:
        search.check()
    elif wanted == "int8-static":
        raise UsageError("--precision int8-static measures on data: give --calibration-data")
    if options.provider == "cuda" and wanted not in (*FLOAT_PRECISIONS, "int4"):
        raise NotSupportedError(f"--precision {wanted or 'auto'} is for CPUs; for CUDA use fp16 or (decoders) int4")
    with BundleWriter(out) as writer:
        with step("reading the adapter"):
            adapter = read_adapter(
                adapters, top_k=options.top_k, tasks=options.tasks, allow_pickle=options.allow_pickle
            )
            if search is None:  # else routes may still come from data: `adapt` has the last word
                check_options(adapter, options)
        if search is not None and search.only not in FLOAT_PRECISIONS:
            with calibrating(base, adapter, options, folder_beside(out)) as calibration:
                return _measured(writer, calibration)
        if search is not None:
            options = _with_routes(base, adapter, options, search)
        return Exported(_unmeasured(writer, base, adapter, options))


def folder_beside(out: Path) -> Path:
    """Where a calibration for a bundle keeps its results until the bundle is there."""
    return out.with_name(f"{out.name}.calibration")


def _with_routes(base: Path | None, adapter: Adapter, options: ExportOptions, search: Search) -> ExportOptions:
    """Options in a float precision: nothing but TuckA's routes is measured for it."""
    assert search.only is not None
    check_freezes(base, adapter, options)
    study = study_routes(base, adapter, options, read_rows(adapter, options, search))
    return replace(study.options(options), precision=search.only)


def _unmeasured(writer: BundleWriter, base: Path | None, adapter: Adapter, options: ExportOptions) -> Bundle:
    with TemporaryDirectory(prefix="eptx-") as workspace:
        adapted = adapt(base, adapter, options, Path(workspace))
        if options.precision not in FLOAT_PRECISIONS and adapted.precision == "fp32":
            adapted = quantize(adapted, QuantizationConfig(_SCHEMES[str(options.precision)]))
        else:
            store(adapted)
        return write(writer, adapted)


def _measured(writer: BundleWriter, calibration: Calibration) -> Exported:
    only = calibration.evaluator.options.only
    if only is None:
        calibration.search()
    else:
        calibration.try_only(QuantizationConfig(BUILT if only == "int4" and calibration.built else _SCHEMES[only]))
        _refuse_over(calibration)
    bundle, result = write(writer, calibration.chosen()), calibration.result()
    for name, content in report_files(result).items():
        write_report(bundle, f"calibration{Path(name).suffix}", content)
    calibration.finish()
    return Exported(bundle, result)


def _refuse_over(calibration: Calibration) -> None:
    """A budget that the user has stated is kept."""
    budget, best = calibration.stated, calibration.found.best
    drop = next((drop for drop in best.drops if not is_within(drop, budget)), None)
    if budget and drop is not None:
        calibration.finish()
        raise ValidationError(
            f"{drop.task} drops by {drop.points:.2f} points of {drop.metric} "
            f"(95 %: {drop.low:.1f} to {drop.high:.1f}) with {best.name}, "
            f"and may drop by {budget[drop.task]:g}; try --precision auto"
        )
