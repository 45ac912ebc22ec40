"""``eptx export``: a bundle in the precision that was asked for, measured on data where there is some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from eptx.bundle import Bundle, BundleWriter, write_report
from eptx.calibration.options import CalibrationOptions
from eptx.calibration.quantize import Scheme
from eptx.calibration.routes.study import measure_route, routed_tasks
from eptx.calibration.run import Calibration, has_builder
from eptx.calibration.quantize.config import BUILT, Setting, stored
from eptx.errors import NotSupportedError, UsageError, ValidationError
from eptx.exporter import ExportOptions
from eptx.exporter import export_bundle as export_plain
from eptx.exporter.export import adapt, write
from eptx.exporter.methods.read import read_adapter
from eptx.runtime.measure import read_data

_PLAIN = ("fp32", "fp16")
_SCHEMES: dict[str, Scheme] = {"int8": "int8", "int8-static": "int8-static", "int4": "int4-blocks"}


def export_bundle(
    base: Path | None,
    adapters: Sequence[Path],
    out: Path,
    options: ExportOptions,
    calibration: CalibrationOptions | None = None,
) -> Bundle:
    """Exports a base model with an adapter to a bundle, in any precision.

    Args:
        base: the base model's transformers folder; None when `options.base_onnx` stands alone.
        adapters: the adapter folder, or several LoRA folders on one base, each a task.
        out: the bundle's folder; an existing bundle is replaced in one step, anything else is left alone. While data
            is measured, what is known so far is kept beside it, in ``<out>.calibration``: the same call goes on there.
        options: the mode, the precision and further settings.
        calibration: the data to measure on: needed by the precisions "int8-static" and "auto", and to measure TuckA's
            frozen routes; with the others it says what is lost, and a budget is then kept or nothing is written.

    Returns:
        The bundle, verified as a reader would; after a calibration with ``calibration.json`` in it, and its report.

    Raises:
        UsageError: the options contradict each other or the adapter, or data is missing.
        AdapterError, BaseModelError, DataError: the files are damaged or do not fit each other.
        NotSupportedError: something that eptx does not do.
        ValidationError: a task loses more than the budget that was given for it.
    """
    options.check()
    _check(options, calibration)
    if calibration is None:
        return _unmeasured(base, adapters, out, options)
    if options.precision in _PLAIN:
        return export_plain(base, adapters, out, with_routes(base, adapters, options, calibration))
    with BundleWriter(out) as writer, Calibration(base, adapters, options, calibration, folder_beside(out)) as running:
        if options.precision == "auto":
            running.search()
        else:
            built = options.precision == "int4" and running.built
            running.try_only(Setting(BUILT if built else _SCHEMES[options.precision]))
            _refuse_over(running, calibration)
        bundle = write(writer, running.chosen())
        for name, content in running.reports().items():
            write_report(bundle, f"calibration{Path(name).suffix}", content)
        running.done()
        return bundle


def with_routes(
    base: Path | None, adapters: Sequence[Path], options: ExportOptions, calibration: CalibrationOptions
) -> ExportOptions:
    """An export's options with TuckA's routes, frozen on the data: nothing else is measured on it in float."""
    tasks = routed_tasks(base, adapters, options)
    everyone = read_adapter(adapters, top_k=options.top_k, tasks=options.tasks).tasks
    others = [task for task in everyone if task not in tasks]
    return measure_route(base, adapters, options, read_data(calibration.data, tasks, calibration.rows, others=others))


def folder_beside(out: Path) -> Path:
    """Where a calibration for a bundle keeps what it knows until the bundle is there."""
    return out.with_name(f"{out.name}.calibration")


def _check(options: ExportOptions, calibration: CalibrationOptions | None) -> None:
    if calibration is not None:
        calibration.check()
    elif options.precision in ("int8-static", "auto"):
        raise UsageError(f"--precision {options.precision} measures on data: give --calibration-data")
    if options.precision not in _PLAIN and options.provider == "cuda" and options.precision != "int4":
        raise NotSupportedError(f"--precision {options.precision} is for CPUs; for CUDA use fp16 or (decoders) int4")


def _unmeasured(base: Path | None, adapters: Sequence[Path], out: Path, options: ExportOptions) -> Bundle:
    if options.precision in _PLAIN or (options.precision == "int4" and _builds(base, adapters, options)):
        return export_plain(base, adapters, out, options)
    with BundleWriter(out) as writer, TemporaryDirectory(prefix="eptx-") as workspace:
        adapted = adapt(base, adapters, replace(options, precision="fp32"), Path(workspace))
        return write(writer, stored(adapted, Setting(_SCHEMES[options.precision])))


def _builds(base: Path | None, adapters: Sequence[Path], options: ExportOptions) -> bool:
    return has_builder(base, read_adapter(adapters, top_k=options.top_k, tasks=options.tasks), options)


def _refuse_over(running: Calibration, calibration: CalibrationOptions) -> None:
    """A budget that the user has stated is kept."""
    if not calibration.max_drop:
        return
    name = running.found.chosen.name
    for drop in running.found.trials[running.found.chosen].drops:
        budget = running.budget[drop.task]
        if drop.points > budget:
            running.done()  # nothing is left to go on with
            raise ValidationError(
                f"{drop.task} loses {drop.points:.2f} points of {drop.metric} "
                f"(95 %: {drop.low:.1f} to {drop.high:.1f}) by {name}, "
                f"and may lose {budget:g}; try --precision auto"
            )
