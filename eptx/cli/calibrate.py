"""``eptx calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from eptx.cli.parts.calibration import calibration_options, read_search, resuming
from eptx.cli.parts.common import PATH, check_is_bundle, exporting, output_options, print_json, printable
from eptx.cli.parts.model import export_options, model_options
from eptx.errors import UsageError


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="BUNDLE | [BASE] ADAPTER...")
@click.option("-o", "--output", required=True, type=PATH, help="Folder for calibration.json and report.html.")
@click.option(
    "--data",
    multiple=True,
    required=True,
    metavar="[TASK=]PATH",
    help="Rows to measure on: jsonl or a Hugging Face dataset folder (text, text_pair, task, label).",
)
@click.option("--mode", type=click.Choice(["static", "conditioned", "dynamic"]), default="conditioned")
@model_options
@calibration_options
@output_options
def calibrate(
    paths: tuple[Path, ...], output: Path, data: tuple[str, ...], as_json: bool, quiet: bool, **settings: Any
) -> None:
    """Measure what quantizing a model would cost and how far it would drop, task by task and layer by layer.

    Takes a bundle, or BASE and ADAPTER as export does. Writes calibration.json and report.html; writes no bundle.
    """
    with exporting(quiet), resuming():
        from eptx.exporter.folders import find_arguments

        search = read_search(settings, data)
        if (paths[0] / "eptx.json").exists():
            if len(paths) > 1:
                raise UsageError("give one bundle, or BASE and ADAPTER")
            check_is_bundle(paths[0])
            from eptx.calibration import calibrate_bundle  # imports PyTorch, as below

            result = calibrate_bundle(paths[0], output, search)
        else:
            options = export_options(settings, search)
            found = find_arguments(paths, onnx=options.base_onnx is not None, allow_pickle=options.allow_pickle)
            from eptx.calibration import calibrate as run

            result = run(found.base, found.adapters, output, options)
    if as_json:
        print_json(result.to_json())
    else:
        from eptx.calibration.report import report_text

        click.echo(report_text(result))
        click.echo(f"{printable(str(output))}: calibration.json, report.html")
