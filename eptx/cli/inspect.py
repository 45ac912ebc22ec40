"""``eptx inspect``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eptx.bundle import read_bundle
from eptx.cli._common import PATH, exporting, names, output_options, print_json, printable
from eptx.errors import UsageError

if TYPE_CHECKING:
    from eptx.exporter.adapters.adapter import Adapter


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="PATH...")
@click.option("--top-k", type=int, help="Experts per task, where the adapter's files do not say it.")
@click.option("--tasks", help="Names of the tasks by id, separated by commas.")
@click.option("--plot", type=PATH, metavar="FILE.png", help="Draw which experts each task uses.")
@output_options
def inspect(
    paths: tuple[Path, ...], top_k: int | None, tasks: str | None, plot: Path | None, as_json: bool, quiet: bool
) -> None:
    """Show what an adapter folder (or several LoRA folders) or a bundle holds."""
    if (paths[0] / "eptx.json").exists():
        if len(paths) > 1 or plot:
            raise UsageError("inspect takes one bundle, and --plot is for adapters")
        facts = _bundle_facts(paths[0])
    else:
        with exporting(quiet):
            from eptx.exporter.methods.read import read_adapter

            adapter = read_adapter(paths, top_k=top_k, tasks=names(tasks), incomplete=plot is None)
            facts = _adapter_facts(adapter)
            if plot is not None:
                _plot_experts(adapter, plot)
    if as_json:
        print_json(facts)
    else:
        for line in _lines(facts):
            click.echo(printable(line))


def _bundle_facts(path: Path) -> dict[str, Any]:
    bundle = read_bundle(path)
    manifest = bundle.manifest.to_json()
    manifest["bytes"] = bundle.size
    manifest["modules"] = list(bundle.manifest.modules)
    if manifest["quantization"] is not None:
        stored = {kind: dict(Counter(manifest["quantization"][kind].values())) for kind in ("products", "embeddings")}
        manifest["quantization"] |= stored
    return manifest


def _adapter_facts(adapter: Adapter) -> dict[str, Any]:
    """Method, tasks, modules with ranks and experts, parameters and bytes, as JSON types."""
    heads, count = adapter.heads, adapter.parameters()
    return {
        "method": adapter.method,
        "fingerprint": adapter.fingerprint,
        "tasks": list(adapter.tasks),
        "parameters": count,
        "bytes_fp32": 4 * count,
        "task_heads": {task: heads.labels(task) for task in heads.weights} if heads else None,
        **adapter.describe(),
    }


def _plot_experts(adapter: Adapter, file: Path) -> None:
    from eptx.exporter.methods.method import method_of

    figure = method_of(adapter.method).plot(adapter)
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be written: {error}") from None


def _lines(value: Any, indent: str = "") -> list[str]:
    """Nested facts as indented text."""
    lines = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            lines += [f"{indent}{key}:", *_lines(item, indent + "  ")]
        elif isinstance(item, list | tuple) and item and all(isinstance(i, dict) for i in item):
            lines.append(f"{indent}{key}:")
            for entry in item:
                lines.append(f"{indent}  - " + "; ".join(f"{k} {_short(v)}" for k, v in entry.items()))
        else:
            lines.append(f"{indent}{key}: {_short(item)}")
    return lines


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_short(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_short(v) for v in value) + "]"
    return "none" if value is None else str(value)
