"""What ``eptx add`` and ``eptx remove`` show."""

from __future__ import annotations

from pathlib import Path

import click

from eptx.bundle import Bundle
from eptx.cli.parts.common import print_json, printable


def show_changed(bundle: Bundle, output: Path, seconds: float, as_json: bool) -> None:
    """Shows a bundle whose tasks were changed."""
    names = [task.name for task in bundle.manifest.tasks]
    if as_json:
        told = {"bundle": printable(str(output)), "seconds": round(seconds, 2), "bytes": bundle.size, "tasks": names}
        print_json(told | {"fingerprints": dict(bundle.manifest.fingerprints)})
        return
    click.echo(f"{printable(str(output))}: tasks {', '.join(names)}; {bundle.size / 1e6:.1f} MB in {seconds:.1f} s")
