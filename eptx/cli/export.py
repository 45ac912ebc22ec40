"""``eptx export``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from eptx._json import read_json_object
from eptx.bundle import Bundle
from eptx.cli._common import PATH, exporting, names, output_options, print_json, printable
from eptx.errors import UsageError


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="[BASE] ADAPTER...")
@click.option("-o", "--output", required=True, type=PATH, help="Folder of the bundle; an existing bundle is replaced.")
@click.option("--mode", required=True, type=click.Choice(["static", "conditioned", "dynamic"]))
@click.option("--task", help="static: the task to fold into the weights.")
@click.option("--tasks", help="Names of the tasks by id, separated by commas (default: task0, task1, ...).")
@click.option("--top-k", type=int, help="EPT: experts per task, where the adapter's files do not say it.")
@click.option(
    "--routing",
    type=click.Choice(["batch", "row", "prompt"]),
    default="batch",
    show_default=True,
    help="TuckA, dynamic: one route for the batch, as released, one per row, or (generation) one per row's prompt.",
)
@click.option(
    "--route",
    multiple=True,
    metavar="[TASK=]GROUP:W1,W2,...",
    help="TuckA, static and conditioned: the frozen route (of one task).",
)
@click.option(
    "--calibration-data",
    type=PATH,
    metavar="FILE.jsonl",
    help="TuckA, static and conditioned: measure the route on these texts (text, text_pair, task).",
)
@click.option(
    "--base-onnx", type=PATH, metavar="FILE.onnx", help="Use this ONNX file of the base; BASE may then be left out."
)
@click.option(
    "--module-map",
    type=PATH,
    metavar="FILE.json",
    help="Module name to node or initializer name, for modules that are not found.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int4"]),
    default="fp32",
    show_default=True,
    help="How weights are stored; int4 (in blocks) is for decoders.",
)
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Execution provider that the graph is fused for.",
)
@output_options
def export(paths: tuple[Path, ...], output: Path, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Export a base model with an adapter to an ONNX bundle.

    BASE is a transformers folder; ADAPTER one adapter folder, or several LoRA folders on one base, each a task.
    """
    start = time.monotonic()
    with exporting(quiet):
        bundle = _export(paths, output, settings)
    seconds = time.monotonic() - start
    if as_json:
        print_json(
            {"bundle": printable(str(output)), "seconds": round(seconds, 2), "bytes": _bytes(bundle), **_facts(bundle)}
        )
    else:
        tasks = ", ".join(task.name for task in bundle.manifest.tasks)
        kind = f"{bundle.manifest.mode} {bundle.manifest.method}"
        click.echo(f"{printable(str(output))}: {kind}, tasks {tasks}; {_bytes(bundle) / 1e6:.1f} MB in {seconds:.1f} s")
        for line in _route_lines(bundle):
            click.echo(line)


def _export(paths: tuple[Path, ...], output: Path, settings: dict[str, Any]) -> Bundle:
    from eptx.exporter import ExportOptions, Route, export_bundle

    base, adapters = split_paths(paths, has_onnx=settings["base_onnx"] is not None)
    module_map = settings.pop("module_map")
    calibration = settings.pop("calibration_data")
    routes: dict[str | None, Route] = {}
    for text in settings.pop("route"):
        name, found, route = text.rpartition("=")
        task = name if found else None
        if task in routes:
            raise UsageError(f"--route is given twice for {'every task' if task is None else task!r}")
        routes[task] = Route.parse(route)
    options = ExportOptions(
        tasks=names(settings.pop("tasks")),
        routes=routes,
        module_map=read_json_object(module_map, error=UsageError) if module_map else None,
        **settings,
    )
    if calibration is not None:
        from eptx.calibration import measure_route

        options = measure_route(base, adapters, options, calibration)
    return export_bundle(base, adapters, output, options)


def split_paths(paths: tuple[Path, ...], *, has_onnx: bool) -> tuple[Path | None, tuple[Path, ...]]:
    """BASE and ADAPTER...; BASE may be missing beside an ONNX base, and is told apart by its files."""
    if has_onnx and (len(paths) == 1 or (paths[0] / "adapter_config.json").exists()):
        return None, paths
    if len(paths) < 2:
        raise UsageError("give BASE and ADAPTER: the transformers folder of the base model and the adapter's folder")
    return paths[0], paths[1:]


def _bytes(bundle: Bundle) -> int:
    return sum(entry.size for entry in bundle.manifest.files.values())


def _facts(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "mode": manifest.mode,
        "method": manifest.method,
        "tasks": [task.name for task in manifest.tasks],
        "route": manifest.route,
        "fingerprints": dict(manifest.fingerprints),
    }


def _route_lines(bundle: Bundle) -> list[str]:
    route = bundle.manifest.route or {}
    lines = [
        f"route of {task}: group {frozen['group']}, weights {', '.join(f'{w:.4f}' for w in frozen['weights'])}"
        for task, frozen in route.get("tasks", {}).items()
    ]
    for task, error in route.get("frozen_error", {}).items():
        lines.append(
            f"frozen against live route, {task}: group agrees on {error['group_agreement']:.1%} of "
            f"{error['rows']} rows, largest output difference {error['max_abs']:.3g}, mean {error['mean_abs']:.3g}"
        )
    return lines
