"""``eptx export``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eptx.bundle import Bundle
from eptx.cli.parts.calibration import calibration_options, read_precision, resuming
from eptx.cli.parts.common import PATH, exporting, output_options, print_json, printable
from eptx.cli.parts.model import export_options, model_options

if TYPE_CHECKING:
    from eptx.calibration.export import Exported


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="[BASE] ADAPTER...")
@click.option("-o", "--output", required=True, type=PATH, help="Folder of the bundle; an existing bundle is replaced.")
@click.option("--mode", required=True, type=click.Choice(["static", "conditioned", "dynamic"]))
@click.option(
    "--calibration-data",
    multiple=True,
    metavar="[TASK=]PATH",
    help="Rows to measure on (jsonl or a Hugging Face dataset folder: text, text_pair, task, label): the accuracy drop "
    "of quantizing, and frozen routes.",
)
@calibration_options
@model_options
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8", "int8-static", "int4", "auto"]),
    default="fp32",
    show_default=True,
    help="How weights are stored; auto searches for the best within --max-drop.",
)
@output_options
def export(paths: tuple[Path, ...], output: Path, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Export a base model with an adapter to an ONNX bundle.

    BASE is a transformers folder; ADAPTER one adapter folder, or several LoRA folders on one base, each a task. Both
    may be ids on the Hugging Face hub (owner/name, owner/name@revision). Without BASE, the adapter's files name it.
    """
    start = time.monotonic()
    with exporting(quiet), resuming() if settings["calibration_data"] else nullcontext():
        exported = _export(paths, output, settings)
    bundle, calibration = exported.bundle, exported.calibration
    seconds = time.monotonic() - start
    if as_json:
        measured = calibration.to_json() if calibration is not None else None
        told = {"bundle": printable(str(output)), "seconds": round(seconds, 2), "bytes": bundle.size}
        print_json(told | _facts(bundle) | {"calibration": measured})
    else:
        tasks = ", ".join(task.name for task in bundle.manifest.tasks)
        kind = f"{bundle.manifest.mode} {bundle.manifest.method}"
        click.echo(f"{printable(str(output))}: {kind}, tasks {tasks}; {bundle.size / 1e6:.1f} MB in {seconds:.1f} s")
        for line in [*_release_lines(bundle), *_route_lines(bundle), *_expert_lines(bundle)]:
            click.echo(line)
        if calibration is not None:
            from eptx.calibration.report import report_text

            click.echo(f"\n{report_text(calibration)}")


def _export(paths: tuple[Path, ...], output: Path, settings: dict[str, Any]) -> Exported:
    from eptx.exporter.folders import find_arguments

    options = export_options(settings, read_precision(settings))
    found = find_arguments(paths, onnx=options.base_onnx is not None, allow_pickle=options.allow_pickle)
    from eptx.calibration import run_export  # imports PyTorch, which is for folders that are there

    return run_export(found.base, found.adapters, output, options)


def _facts(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "mode": manifest.mode,
        "method": manifest.method,
        "tasks": [task.name for task in manifest.tasks],
        "onnxruntime": None if manifest.onnxruntime is None else manifest.onnxruntime.version,
        "route": manifest.route,
        "unused_experts": _unused_experts(bundle),
        "fingerprints": dict(manifest.fingerprints),
    }


def _release_lines(bundle: Bundle) -> list[str]:
    needed = bundle.manifest.onnxruntime
    if needed is None:
        return []
    return [f"for ONNX Runtime {needed.version} or newer (opset {needed.opset}, IR version {needed.ir_version})"]


def _route_lines(bundle: Bundle) -> list[str]:
    route = bundle.manifest.route or {}
    if "modules" in route:
        return [
            f"fixed against live weights, {task}: largest output difference {error['max_abs']:.3g}, mean "
            f"{error['mean_abs']:.3g} on {error['rows']} rows, divergence {error['divergence']:.3g} of 100"
            for task, error in route.get("frozen_error", {}).items()
        ]
    lines = [
        f"route of {task}{_call(at, routes)}: {_group(frozen)}"
        for task, routes in route.get("tasks", {}).items()
        for at, frozen in enumerate(routes)
    ]
    lines += [
        f"route of the router's call {frozen['call'] + 1}, a constant of base and adapter: {_group(frozen)}"
        for frozen in route.get("constant", [])
    ]
    for task, error in route.get("frozen_error", {}).items():
        lines.append(
            f"frozen against live route, {task}: group agrees on {error['group_agreement']:.1%} of "
            f"{error['rows']} rows, largest output difference {error['max_abs']:.3g}, mean {error['mean_abs']:.3g}, "
            f"divergence {error['divergence']:.3g} of 100"
        )
    return lines


def _group(frozen: Mapping[str, Any]) -> str:
    return f"group {frozen['group']}, weights {', '.join(f'{w:.4f}' for w in frozen['weights'])}"


def _call(at: int, routes: Sequence[object]) -> str:
    """Which of the calls that route by the data it is, where there are several."""
    return f", {at + 1} of {len(routes)}" if len(routes) > 1 else ""


def _unused_experts(bundle: Bundle) -> dict[str, list[int]]:
    """Module -> the experts that no task uses, where there are any."""
    manifest = bundle.manifest
    modules = {**(manifest.encoder.modules if manifest.encoder is not None else {}), **manifest.modules}
    return {name: list(module.unused_experts) for name, module in modules.items() if module.unused_experts}


def _expert_lines(bundle: Bundle) -> list[str]:
    unused = _unused_experts(bundle)
    count = sum(map(len, unused.values()))
    return [f"left out {count} experts that no task uses, in {len(unused)} modules"] if unused else []
