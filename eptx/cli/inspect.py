"""``eptx inspect``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eptx.bundle import read_bundle
from eptx.cli.parts.common import PATH, exporting, names, output_options, pickle_option, print_json
from eptx.cli.parts.facts import fact_lines, screen_width, short, table_lines, wrapped
from eptx.cli.parts.module_groups import common, groups
from eptx.errors import NotSupportedError, UsageError

if TYPE_CHECKING:
    from eptx.exporter.adapters.adapter import Adapter


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="PATH...")
@click.option("--top-k", type=int, help="Experts per task, where the adapter's files do not say it.")
@click.option("--tasks", help="Names of the tasks by id, separated by commas.")
@click.option(
    "--plot",
    type=PATH,
    metavar="FILE.png",
    help="Draw how much each task uses each expert: of an adapter, or of a bundle whose weights data has fixed.",
)
@click.option("--modules", is_flag=True, help="Name every module; else those of all layers are one group.")
@pickle_option
@output_options
def inspect(
    paths: tuple[Path, ...],
    top_k: int | None,
    tasks: str | None,
    plot: Path | None,
    modules: bool,
    allow_pickle: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show what an adapter (a folder or an id on the hub; or several LoRA adapters) or a bundle holds."""
    if (paths[0] / "eptx.json").exists():
        if len(paths) > 1:
            raise UsageError("inspect takes one bundle")
        facts = _bundle_facts(paths[0])
        if plot is not None:
            _plot_load(facts["route"], plot)
    else:
        with exporting(quiet):
            from eptx.exporter.folders import find_adapters

            found = find_adapters(paths, allow_pickle=allow_pickle)
            from eptx.exporter.methods.read import read_adapter  # imports ONNX, which is for folders that are there

            adapter = read_adapter(
                found,
                top_k=top_k,
                tasks=names(tasks),
                incomplete=plot is None,
                allow_pickle=allow_pickle,
            )
            facts = _adapter_facts(adapter)
            if plot is not None:
                _plot_experts(adapter, plot)
    if as_json:
        print_json(facts)
    else:
        for line in _lines(facts, modules):
            click.echo(line)


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
        "method": adapter.kind,
        "fingerprint": adapter.fingerprint,
        "tasks": list(adapter.tasks),
        "parameters": count,
        "bytes_fp32": 4 * count,
        "task_heads": {task: heads.labels(task) for task in heads.weights} if heads else None,
        **adapter.describe(),
    }


def _plot_experts(adapter: Adapter, file: Path) -> None:
    """Draws tasks x experts: how much of each expert a task uses, averaged over the modules."""
    from eptx.exporter.adapters.routing.routers import expert_sizes
    from eptx.exporter.methods.method import method_of

    method = method_of(adapter.method)
    modules = method.task_experts(adapter).values()
    if not modules and method.router(adapter) is not None:
        raise NotSupportedError(
            f"--plot: data decides which experts {adapter.method} uses: export with --calibration-data, "
            "and plot the bundle"
        )
    if not modules:
        raise NotSupportedError(f"--plot draws which experts a task uses; {adapter.method} has none per task")
    sizes = expert_sizes(modules)
    usage = [[0.0] * len(sizes) for _ in adapter.tasks]
    for module in modules:
        for row, chosen in zip(usage, module.choices, strict=True):
            for expert, weight in chosen:
                row[expert] += weight / len(modules)
    top = len(next(iter(modules)).choices[0])
    title = f"mean weight over {len(modules)} modules" + (f", top {top}" if top < len(sizes) else "")
    _draw(usage, adapter.tasks, sizes, title, file)


def _plot_load(route: Mapping[str, Any] | None, file: Path) -> None:
    """Draws tasks x experts of a bundle: how much routers have used each expert on data, averaged over the modules."""
    if not (route or {}).get("modules"):
        raise UsageError("--plot draws adapters, and bundles with weights that data has fixed; this has none")
    assert route is not None
    tasks = {task: [each["weights"] for each in routes] for task, routes in route["tasks"].items()}
    usage = [[sum(own) / len(weights) for own in zip(*weights, strict=True)] for weights in tasks.values()]
    title = f"mean weight on data over {len(route['modules'])} modules"
    _draw(usage, list(tasks), [None] * len(usage[0]), title, file)


def _draw(
    usage: Sequence[Sequence[float]], tasks: Sequence[str], sizes: Sequence[int | None], title: str, file: Path
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.5 + 0.4 * len(tasks)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(usage, cmap="viridis", aspect="auto", vmin=0)
    kernels = any(sizes)
    axes.set_xticks(range(len(sizes)), [f"{e}\n{size or '*'}" if kernels else str(e) for e, size in enumerate(sizes)])
    axes.set_yticks(range(len(tasks)), tasks)
    axes.set_xlabel("expert, and its kernel size" if kernels else "expert")
    axes.set_title(title)
    figure.colorbar(image, ax=axes)
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be written: {error}") from None


def _lines(facts: dict[str, Any], every_module: bool) -> list[str]:
    """The facts for a screen; modules come last, in groups or one by one."""
    width = screen_width()
    given = [module if isinstance(module, dict) else {"name": module} for module in facts["modules"]]
    known = {module["name"]: {key: value for key, value in module.items() if key != "name"} for module in given}
    files = {"files": {name: entry["size"] for name, entry in facts["files"].items()}} if "files" in facts else {}
    lines = fact_lines({**facts, **files, "modules": None}, width)
    if every_module:
        shown = [line for name, own in known.items() for line in wrapped("; ".join([name, *_told(own)]), width)]
        return [*lines, f"modules ({len(known)}):", *shown]
    found = {name: common([known[each] for each in own]) for name, own in groups(known).items()}
    of_all = common(list(found.values())) if found else {}
    keys = [key for key in dict.fromkeys(key for own in found.values() for key in own) if key not in of_all]
    table = [
        {"modules": len(own), "name": name, **{key: found[name].get(key) for key in keys}}
        for name, own in groups(known).items()
    ]
    title = f"modules: {len(known)}{''.join(f', {each}' for each in _told(of_all))}; --modules names all"
    return [*lines, *wrapped(title, width), *(f"  {line}" for line in (table_lines(table, width - 2) if table else []))]


def _told(facts: Mapping[str, Any]) -> list[str]:
    return [f"{key} {short(value)}" for key, value in facts.items()]
