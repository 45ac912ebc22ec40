"""``eptx convert``."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from eptx.cli.parts.common import PATH, exporting


@click.command()
@click.argument("source", type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help="The new adapter's folder.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="What the files do not say. Repeat it for each setting.",
)
def convert(source: Path, output: Path, settings: tuple[str, ...]) -> None:
    """Rewrite what a method's released code saves as a folder that `eptx export` reads.

    SOURCE is a folder or a file (.bin, .pt, .pth, .safetensors). A pickle is read with torch's weights_only loader, in
    a process with limits of memory and time. What the files do not say is asked for.
    """
    with exporting(quiet=True):
        from eptx.exporter.folders import find_tensor_file

        find_tensor_file(source)  # says what is not there before the methods are imported
        from eptx.exporter.steps.convert import convert_adapter

        made = convert_adapter(source, output, dict(map(_setting, settings)))
    click.echo(f"{made.source} is {made.method}: {made.tensors} tensors in {output}")


def _setting(text: str) -> tuple[str, Any]:
    key, found, value = text.partition("=")
    if not found or not key:
        raise click.UsageError(f"--set {text}: give KEY=VALUE")
    for kind in (int, float):
        with suppress(ValueError):
            return key, kind(value)
    return key, value
