"""``eptx remove``."""

from __future__ import annotations

import time
from pathlib import Path

import click

from eptx.cli.parts.common import PATH, check_is_bundle, exporting, output_options
from eptx.cli.parts.tasks import show_changed


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@click.option("-o", "--output", required=True, type=PATH, help="Folder of the new bundle; may be BUNDLE itself.")
@output_options
def remove(bundle: Path, tasks: tuple[str, ...], output: Path, as_json: bool, quiet: bool) -> None:
    """Take tasks out of a conditioned LoRA bundle, without its base.

    The result is the bundle of an export of the other adapters, byte for byte.
    """
    start = time.monotonic()
    check_is_bundle(bundle)
    with exporting(quiet):
        from eptx.calibration.change import remove_tasks

        changed = remove_tasks(bundle, tasks, output)
    show_changed(changed, output, time.monotonic() - start, as_json)
