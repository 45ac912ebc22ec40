"""``eptx add``."""

from __future__ import annotations

import time
from pathlib import Path

import click

from eptx.cli.parts.common import PATH, check_is_bundle, exporting, output_options, pickle_option
from eptx.cli.parts.model import problem_option, read_problems
from eptx.cli.parts.tasks import show_changed


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("adapters", nargs=-1, required=True, type=PATH, metavar="ADAPTER...")
@click.option("-o", "--output", required=True, type=PATH, help="Folder of the new bundle; may be BUNDLE itself.")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Name of the new task; once for each ADAPTER.")
@problem_option
@pickle_option
@output_options
def add(
    bundle: Path,
    adapters: tuple[Path, ...],
    output: Path,
    tasks: tuple[str, ...],
    problem_types: tuple[str, ...],
    allow_pickle: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Put further LoRA adapters on a conditioned bundle, without its base.

    Each ADAPTER is a folder, and a task; it may bring a head, norms and biases of its own. The result is the bundle
    of an export of all adapters, byte for byte.
    """
    start = time.monotonic()
    check_is_bundle(bundle)
    with exporting(quiet):
        from eptx.calibration.change import add_tasks

        problems = read_problems(problem_types)
        changed = add_tasks(
            bundle, adapters, output, tasks=tasks or None, problem_types=problems, allow_pickle=allow_pickle
        )
    show_changed(changed, output, time.monotonic() - start, as_json)
